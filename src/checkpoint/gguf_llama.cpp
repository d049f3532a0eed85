#include "checkpoint/gguf_llama.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>

#include "base/error.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

/// Keeps every product of two sizes far from overflow.
constexpr uint64_t kMaxSize = uint64_t{1} << 30;
constexpr uint64_t kMaxLayers = uint64_t{1} << 16;

uint64_t positive(const GgufFile& file, std::string_view key, uint64_t value) {
  require(value >= 1 && value <= kMaxSize, "{}: {}: expected 1 to {}, found {}", file.name(), key, kMaxSize,
          value);
  return value;
}

uint64_t get_positive(const GgufFile& file, std::string_view key) {
  return positive(file, key, file.get_uint(key));
}

double get_positive_float(const GgufFile& file, std::string_view key, std::optional<double> fallback) {
  const double value = fallback ? file.find_float(key).value_or(*fallback) : file.get_float(key);
  require(std::isfinite(value) && value > 0, "{}: {}: expected a positive number, found {}", file.name(), key,
          value);
  const auto narrow = static_cast<float>(value);
  return static_cast<double>(narrow) == value ? decimal(narrow) : value;
}

void require_uint(const GgufFile& file, std::string_view key, uint64_t expected) {
  const uint64_t found = file.find_uint(key).value_or(expected);
  require(found == expected, "{}: {}: expected {}, found {}, which is not supported", file.name(), key,
          expected, found);
}

void require_float(const GgufFile& file, std::string_view key, double expected) {
  const double found = file.find_float(key).value_or(expected);
  require(found == expected, "{}: {}: expected {}, found {}, which is not supported", file.name(), key,
          expected, found);
}

void check_settings(const GgufFile& file, const GgufLlama& llama) {
  require_uint(file, "llama.attention.value_length", llama.head_dim);
  require_uint(file, "llama.rope.dimension_count", llama.head_dim);
  require_uint(file, "llama.expert_count", 0);
  require_uint(file, "llama.expert_used_count", 0);
  require_float(file, "llama.rope.scale_linear", 1);
  require_float(file, "llama.rope.scaling.factor", 1);
  require_float(file, "llama.rope.scaling.attn_factor", 1);
  const auto scaling = file.find_string("llama.rope.scaling.type").value_or("none");
  // Linear scaling by the factor 1 checked above is no scaling.
  require(scaling == "none" || scaling == "linear",
          "{}: llama.rope.scaling.type: expected \"none\", found \"{}\", which is not supported", file.name(),
          printable(scaling));
  require(file.find_bool("llama.attention.causal").value_or(true),
          "{}: llama.attention.causal: expected true, found false, which is not supported", file.name());

  static const std::set<std::string_view> kKnown = {
      "llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
      "llama.vocab_size", "llama.attention.head_count", "llama.attention.head_count_kv",
      "llama.attention.key_length", "llama.attention.value_length", "llama.attention.layer_norm_rms_epsilon",
      "llama.attention.causal", "llama.rope.freq_base", "llama.rope.dimension_count",
      "llama.rope.scale_linear", "llama.rope.scaling.type", "llama.rope.scaling.factor",
      "llama.rope.scaling.attn_factor", "llama.expert_count", "llama.expert_used_count",
      // Say where the model came from, or have a meaning only beside a scaling refused above.
      "llama.rope.scaling.original_context_length", "llama.rope.scaling.finetuned",
      "llama.tensor_data_layout"};
  for (const std::string_view key : file.keys()) {
    require(!key.starts_with("llama.") || kKnown.count(key) != 0, "{}: metadata key \"{}\" is not supported",
            file.name(), printable(key));
  }
}

struct NamePair {
  std::string_view gguf;
  std::string_view hugging_face;
};

constexpr std::array<NamePair, 3> kTopNames = {{{"token_embd.weight", "model.embed_tokens.weight"},
                                                {"output_norm.weight", "model.norm.weight"},
                                                {"output.weight", "lm_head.weight"}}};

constexpr std::array<NamePair, 9> kLayerNames = {{{"attn_norm", "input_layernorm"},
                                                  {"ffn_norm", "post_attention_layernorm"},
                                                  {"attn_q", "self_attn.q_proj"},
                                                  {"attn_k", "self_attn.k_proj"},
                                                  {"attn_v", "self_attn.v_proj"},
                                                  {"attn_output", "self_attn.o_proj"},
                                                  {"ffn_gate", "mlp.gate_proj"},
                                                  {"ffn_up", "mlp.up_proj"},
                                                  {"ffn_down", "mlp.down_proj"}}};

bool has_tensor(const GgufFile& file, std::string_view name) {
  return std::any_of(file.tensors().begin(), file.tensors().end(),
                     [&](const GgufTensor& tensor) { return tensor.name == name; });
}

}  // namespace

GgufLlama read_llama(const GgufFile& file) {
  const std::string_view architecture = file.get_string("general.architecture");
  require(architecture == "llama",
          "{}: general.architecture: expected \"llama\", found \"{}\", which is not supported", file.name(),
          printable(architecture));
  GgufLlama llama;
  llama.layers = get_positive(file, "llama.block_count");
  require(llama.layers <= kMaxLayers, "{}: llama.block_count: expected at most {}, found {}", file.name(),
          kMaxLayers, llama.layers);
  llama.hidden = get_positive(file, "llama.embedding_length");
  llama.intermediate = get_positive(file, "llama.feed_forward_length");
  llama.heads = get_positive(file, "llama.attention.head_count");
  llama.context = get_positive(file, "llama.context_length");
  llama.kv_heads = positive(file, "llama.attention.head_count_kv",
                            file.find_uint("llama.attention.head_count_kv").value_or(llama.heads));
  require(llama.heads % llama.kv_heads == 0,
          "{}: llama.attention.head_count_kv: expected a divisor of the {} heads, found {}", file.name(),
          llama.heads, llama.kv_heads);
  if (const auto length = file.find_uint("llama.attention.key_length")) {
    llama.head_dim = positive(file, "llama.attention.key_length", *length);
  } else {
    require(llama.hidden % llama.heads == 0,
            "{}: llama.attention.head_count: expected a divisor of the embedding length {}, found {}",
            file.name(), llama.hidden, llama.heads);
    llama.head_dim = llama.hidden / llama.heads;
  }
  require(llama.head_dim % 2 == 0, "{}: llama.attention.key_length: expected an even head size, found {}",
          file.name(), llama.head_dim);
  llama.vocab =
      positive(file, "llama.vocab_size",
               file.find("llama.vocab_size") != nullptr ? file.get_uint("llama.vocab_size")
                                                        : file.count_strings("tokenizer.ggml.tokens"));
  if (file.find("tokenizer.ggml.tokens") != nullptr) {
    const uint64_t tokens = file.count_strings("tokenizer.ggml.tokens");
    // Larger ids would have no embedding; the other way round, an embedding without a token, is usual
    // padding.
    require(tokens <= llama.vocab,
            "{}: tokenizer.ggml.tokens: expected at most llama.vocab_size = {} tokens, found {}", file.name(),
            llama.vocab, tokens);
  }
  llama.rms_eps = get_positive_float(file, "llama.attention.layer_norm_rms_epsilon", std::nullopt);
  llama.rope_theta = get_positive_float(file, "llama.rope.freq_base", 10000.0);
  check_settings(file, llama);
  return llama;
}

nlohmann::ordered_json make_llama_config(const GgufFile& file, const GgufLlama& llama) {
  nlohmann::ordered_json config;
  config["architectures"] = {"LlamaForCausalLM"};
  config["model_type"] = "llama";
  config["hidden_size"] = llama.hidden;
  config["intermediate_size"] = llama.intermediate;
  config["num_hidden_layers"] = llama.layers;
  config["num_attention_heads"] = llama.heads;
  config["num_key_value_heads"] = llama.kv_heads;
  config["head_dim"] = llama.head_dim;
  config["hidden_act"] = "silu";
  config["rms_norm_eps"] = llama.rms_eps;
  config["rope_theta"] = llama.rope_theta;
  config["max_position_embeddings"] = llama.context;
  config["vocab_size"] = llama.vocab;
  config["attention_bias"] = has_tensor(file, "blk.0.attn_q.bias");
  config["mlp_bias"] = has_tensor(file, "blk.0.ffn_gate.bias");
  config["tie_word_embeddings"] = !has_tensor(file, "output.weight");
  config["torch_dtype"] = "float32";
  const auto token_id = [&](std::string_view key) -> std::optional<uint64_t> {
    const auto id = file.find_uint(key);
    require(!id || *id < llama.vocab, "{}: {}: expected an id below the vocabulary size {}, found {}",
            file.name(), key, llama.vocab, id.value_or(0));
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
  return config;
}

LlamaTensor map_llama_tensor(const GgufFile& file, const GgufLlama& llama, const GgufTensor& tensor) {
  for (const NamePair& pair : kTopNames) {
    if (tensor.name == pair.gguf) return {std::string(pair.hugging_face), 0};
  }
  const auto unknown = [&]() {
    fail("{}: tensor \"{}\" does not belong to a supported Llama model", file.name(), printable(tensor.name));
  };
  // blk.<layer>.<part>.weight or .bias
  std::string_view rest = tensor.name;
  if (!rest.starts_with("blk.")) unknown();
  rest.remove_prefix(4);
  uint64_t layer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  const auto digits = static_cast<size_t>(end - rest.data());
  if (error != std::errc() || digits == rest.size() || rest[digits] != '.' || (digits > 1 && rest[0] == '0'))
    unknown();
  require(layer < llama.layers, "{}: tensor \"{}\": the model has only {} layers (llama.block_count)",
          file.name(), printable(tensor.name), llama.layers);
  rest.remove_prefix(digits + 1);
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos) unknown();
  const std::string_view part = rest.substr(0, dot);
  const std::string_view kind = rest.substr(dot + 1);
  const auto* pair =
      std::find_if(kLayerNames.begin(), kLayerNames.end(), [&](const NamePair& p) { return p.gguf == part; });
  const bool norm = part.ends_with("_norm");
  if (pair == kLayerNames.end() || !(kind == "weight" || (kind == "bias" && !norm))) unknown();

  LlamaTensor mapped;
  mapped.name = fmt::format("model.layers.{}.{}.{}", layer, pair->hugging_face, kind);
  if (part == "attn_q") mapped.interleaved_heads = llama.heads;
  if (part == "attn_k") mapped.interleaved_heads = llama.kv_heads;
  if (mapped.interleaved_heads != 0) {
    const auto rows = static_cast<uint64_t>(tensor.shape.front());
    require(rows == mapped.interleaved_heads * llama.head_dim,
            "{}: tensor \"{}\": expected {} heads of {} rows, found {} rows", file.name(),
            printable(tensor.name), mapped.interleaved_heads, llama.head_dim, rows);
    require(tensor.shape.size() <= 2, "{}: tensor \"{}\": expected at most 2 dimensions, found {}",
            file.name(), printable(tensor.name), tensor.shape.size());
    require(tensor.shape.size() == 2 || plain_dtype(tensor.type),
            "{}: tensor \"{}\": expected F32, F16 or BF16, found {}", file.name(), printable(tensor.name),
            layout_of(tensor.type).name);
  }
  return mapped;
}

}  // namespace atom
