#include "checkpoint/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "base/error.h"
#include "checkpoint/gguf_rope.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

/// Keeps every product of two sizes far from overflow.
constexpr uint64_t kMaxSize = uint64_t{1} << 30;
constexpr uint64_t kMaxLayers = uint64_t{1} << 16;

struct ArchitectureEntry {
  GgufArchitecture architecture;
  std::string_view gguf;
  const char* model_type;
  const char* model_class;
};

constexpr ArchitectureEntry kArchitectures[] = {
    {GgufArchitecture::llama, "llama", "llama", "LlamaForCausalLM"},
    {GgufArchitecture::qwen2, "qwen2", "qwen2", "Qwen2ForCausalLM"},
    {GgufArchitecture::qwen3, "qwen3", "qwen3", "Qwen3ForCausalLM"},
};

GgufArchitecture read_architecture(const GgufFile& file) {
  const std::string_view name = file.get_string("general.architecture");
  std::string expected;
  for (const ArchitectureEntry& entry : kArchitectures) {
    if (entry.gguf == name) return entry.architecture;
    expected += fmt::format("{}\"{}\"", expected.empty() ? "" : ", ", entry.gguf);
  }
  fail("{}: general.architecture: expected one of {}, found \"{}\", which is not supported", file.name(),
       expected, printable(name));
}

/// The keys of one architecture: "llama.block_count" is key("block_count").
class ModelKeys {
 public:
  ModelKeys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  const GgufFile& file() const { return file_; }
  const std::string& prefix() const { return prefix_; }
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  bool has(std::string_view name) const { return file_.find(key(name)) != nullptr; }
  std::optional<uint64_t> find_uint(std::string_view name) const { return file_.find_uint(key(name)); }

  uint64_t positive(std::string_view name, uint64_t value) const {
    require(value >= 1 && value <= kMaxSize, "{}: {}: expected 1 to {}, found {}", file_.name(), key(name),
            kMaxSize, value);
    return value;
  }
  uint64_t positive(std::string_view name) const { return positive(name, file_.get_uint(key(name))); }

  double positive_float(std::string_view name, std::optional<double> fallback) const {
    const double value =
        fallback ? file_.find_float(key(name)).value_or(*fallback) : file_.get_float(key(name));
    require(std::isfinite(value) && value > 0, "{}: {}: expected a positive number, found {}", file_.name(),
            key(name), value);
    const auto narrow = static_cast<float>(value);
    return static_cast<double>(narrow) == value ? decimal(narrow) : value;
  }

  void only(std::string_view name, uint64_t expected) const {
    const uint64_t found = find_uint(name).value_or(expected);
    require(found == expected, "{}: {}: expected {}, found {}, which is not supported", file_.name(),
            key(name), expected, found);
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

void check_settings(const ModelKeys& keys, const GgufModel& model) {
  const GgufFile& file = keys.file();
  const auto kind = file.find_string("general.type").value_or("model");
  require(kind == "model", "{}: general.type: expected \"model\", found \"{}\", which is not supported",
          file.name(), printable(kind));
  keys.only("attention.value_length", model.head_dim);
  keys.only("rope.dimension_count", model.head_dim);
  keys.only("expert_count", 0);
  keys.only("expert_used_count", 0);
  keys.only("pooling_type", 0);
  require(file.find_bool(keys.key("attention.causal")).value_or(true),
          "{}: {}: expected true, found false, which is not supported", file.name(),
          keys.key("attention.causal"));

  static const std::set<std::string_view> kKnown = {
      "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
      "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
      "attention.layer_norm_rms_epsilon", "attention.causal", "attention.sliding_window", "expert_count",
      "expert_used_count", "pooling_type", "rope.freq_base", "rope.dimension_count",
      // gguf_rope.cpp reads these.
      "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor",
      "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
      "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_log_multiplier",
      // Say where the model came from, or belong to a norm that these architectures do not have.
      "rope.scaling.finetuned", "tensor_data_layout", "attention.layer_norm_epsilon"};
  for (const std::string_view key : file.keys()) {
    if (!key.starts_with(keys.prefix())) continue;
    require(kKnown.count(key.substr(keys.prefix().size())) != 0, "{}: metadata key \"{}\" is not supported",
            file.name(), printable(key));
  }
}

uint64_t read_vocab(const ModelKeys& keys) {
  const GgufFile& file = keys.file();
  const uint64_t vocab =
      keys.positive("vocab_size", keys.has("vocab_size") ? *keys.find_uint("vocab_size")
                                                         : file.count_strings("tokenizer.ggml.tokens"));
  if (file.find("tokenizer.ggml.tokens") != nullptr) {
    const uint64_t tokens = file.count_strings("tokenizer.ggml.tokens");
    // Larger ids would have no embedding; the other way round, an embedding without a token, is usual
    // padding.
    require(tokens <= vocab, "{}: tokenizer.ggml.tokens: expected at most {} = {} tokens, found {}",
            file.name(), keys.key("vocab_size"), vocab, tokens);
  }
  return vocab;
}

void add_token_ids(nlohmann::ordered_json& config, const GgufFile& file, uint64_t vocab) {
  const auto token_id = [&](std::string_view key) -> std::optional<uint64_t> {
    const auto id = file.find_uint(key);
    require(!id || *id < vocab, "{}: {}: expected an id below the vocabulary size {}, found {}", file.name(),
            key, vocab, id.value_or(0));
    return id;
  };
  if (const auto id = token_id("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = *id;
  if (const auto id = token_id("tokenizer.ggml.eos_token_id")) config["eos_token_id"] = *id;
  if (const auto id = token_id("tokenizer.ggml.padding_token_id")) config["pad_token_id"] = *id;
  // A chat turn may end with a token of its own; Hugging Face then lists several.
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const auto id = token_id(key);
    if (!id) continue;
    auto& eos = config["eos_token_id"];
    if (eos.is_null()) {
      eos = *id;
    } else {
      if (!eos.is_array()) eos = nlohmann::ordered_json::array({eos});
      if (std::find(eos.begin(), eos.end(), *id) == eos.end()) eos.push_back(*id);
      if (eos.size() == 1) eos = nlohmann::ordered_json(eos[0]);
    }
  }
}

}  // namespace

GgufModel read_gguf_model(const GgufFile& file) {
  GgufModel model;
  model.architecture = read_architecture(file);
  model.name = file.get_string("general.architecture");
  const ModelKeys keys(file, model.name);
  model.layers = keys.positive("block_count");
  require(model.layers <= kMaxLayers, "{}: {}: expected at most {}, found {}", file.name(),
          keys.key("block_count"), kMaxLayers, model.layers);
  model.hidden = keys.positive("embedding_length");
  model.intermediate = keys.positive("feed_forward_length");
  model.heads = keys.positive("attention.head_count");
  model.context = keys.positive("context_length");
  model.kv_heads = keys.positive("attention.head_count_kv",
                                 keys.find_uint("attention.head_count_kv").value_or(model.heads));
  require(model.heads % model.kv_heads == 0, "{}: {}: expected a divisor of the {} heads, found {}",
          file.name(), keys.key("attention.head_count_kv"), model.heads, model.kv_heads);
  if (const auto length = keys.find_uint("attention.key_length")) {
    model.head_dim = keys.positive("attention.key_length", *length);
  } else {
    require(model.hidden % model.heads == 0,
            "{}: {}: expected a divisor of the embedding length {}, found {}", file.name(),
            keys.key("attention.head_count"), model.hidden, model.heads);
    model.head_dim = model.hidden / model.heads;
  }
  require(model.head_dim % 2 == 0, "{}: {}: expected an even head size, found {}", file.name(),
          keys.key("attention.key_length"), model.head_dim);
  model.vocab = read_vocab(keys);
  model.sliding_window = keys.find_uint("attention.sliding_window").value_or(0);
  require(model.sliding_window <= kMaxSize, "{}: {}: expected at most {}, found {}", file.name(),
          keys.key("attention.sliding_window"), kMaxSize, model.sliding_window);
  model.rms_eps = keys.positive_float("attention.layer_norm_rms_epsilon", std::nullopt);
  model.rope_theta = keys.positive_float("rope.freq_base", 10000.0);
  check_settings(keys, model);
  return model;
}

nlohmann::ordered_json make_gguf_config(const GgufParts& parts, const GgufModel& model) {
  const auto* entry = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                   [&](const auto& e) { return e.architecture == model.architecture; });
  const bool llama = model.architecture == GgufArchitecture::llama;
  // GGUF has one name for both; with a window the model is Hugging Face's Mistral, which has no biases.
  const bool mistral = llama && model.sliding_window != 0;
  nlohmann::ordered_json config;
  config["architectures"] = {mistral ? "MistralForCausalLM" : entry->model_class};
  config["model_type"] = mistral ? "mistral" : entry->model_type;
  config["hidden_size"] = model.hidden;
  config["intermediate_size"] = model.intermediate;
  config["num_hidden_layers"] = model.layers;
  config["num_attention_heads"] = model.heads;
  config["num_key_value_heads"] = model.kv_heads;
  config["head_dim"] = model.head_dim;
  config["hidden_act"] = "silu";
  config["rms_norm_eps"] = model.rms_eps;
  config["rope_theta"] = model.rope_theta;
  if (auto scaling = make_rope_scaling(parts, model); !scaling.is_null()) config["rope_scaling"] = scaling;
  config["max_position_embeddings"] = model.context;
  config["vocab_size"] = model.vocab;
  if (model.sliding_window != 0) {
    config["sliding_window"] = model.sliding_window;
    if (!mistral) {
      config["use_sliding_window"] = true;
      config["max_window_layers"] = 0;
    }
  }
  // Qwen2 has biases of q, k and v without saying so.
  if (model.architecture != GgufArchitecture::qwen2 && !mistral)
    config["attention_bias"] = parts.find("blk.0.attn_q.bias") != nullptr;
  if (llama && !mistral) config["mlp_bias"] = parts.find("blk.0.ffn_gate.bias") != nullptr;
  config["tie_word_embeddings"] = parts.find("output.weight") == nullptr;
  config["torch_dtype"] = "float32";
  add_token_ids(config, parts.metadata(), model.vocab);
  return config;
}

}  // namespace atom
