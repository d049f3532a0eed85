#include "model/config.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "kernels/sampling.h"
#include "model/config_fields.h"

namespace atom {
namespace {

using config_fields::dimension;
using config_fields::find;
using config_fields::flag;
using config_fields::Json;

enum class Window : uint8_t { never, always, by_layer };

/// What transformers' configuration classes differ in.
struct Family {
  std::string_view model_type;
  std::string_view architecture;
  int64_t positions;
  /// Without the field; 0: as many as heads. (JSON null is always that.)
  int64_t kv_heads;
  /// 0: hidden_size / num_attention_heads.
  int64_t head_dim;
  Window window;
  bool qkv_bias;
  bool head_norms;
  /// Whether there are the fields attention_bias (of q, k, v and o) and mlp_bias.
  bool reads_attention_bias;
  bool reads_mlp_bias;
};

constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", 2048, 0, 0, Window::never, false, false, true, true},
    {"mistral", "MistralForCausalLM", 131072, 8, 0, Window::always, false, false, false, false},
    {"qwen2", "Qwen2ForCausalLM", 32768, 32, 0, Window::by_layer, true, false, false, false},
    {"qwen3", "Qwen3ForCausalLM", 32768, 32, 128, Window::by_layer, false, true, true, false},
};

/// What from_json() reads, whatever the family.
constexpr std::string_view kRead[] = {"model_type",
                                      "architectures",
                                      "hidden_size",
                                      "intermediate_size",
                                      "num_hidden_layers",
                                      "num_attention_heads",
                                      "num_key_value_heads",
                                      "head_dim",
                                      "vocab_size",
                                      "max_position_embeddings",
                                      "rms_norm_eps",
                                      "rope_theta",
                                      "rope_scaling",
                                      "rope_parameters",
                                      "original_max_position_embeddings",
                                      "tie_word_embeddings",
                                      "layer_types",
                                      "quantization_config"};

/// What leaves the logits alone: names of things, tokens, training, sampling, and how transformers is to run
/// or answer. max_window_layers belongs to windows, which are looked at by themselves.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_commit_hash",
                                          "_flash_attn_2_enabled",
                                          "_name_or_path",
                                          "attention_dropout",
                                          "attention_probs_dropout_prob",
                                          "attn_implementation",
                                          "attn_pdrop",
                                          "auto_map",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
                                          "bos_token",
                                          "bos_token_id",
                                          "chunk_size_feed_forward",
                                          "classifier_dropout",
                                          "decoder_start_token_id",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "embd_pdrop",
                                          "embedding_dropout",
                                          "encoder_no_repeat_ngram_size",
                                          "eos_token",
                                          "eos_token_id",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "forced_bos_token_id",
                                          "forced_eos_token_id",
                                          "gradient_checkpointing",
                                          "hidden_dropout",
                                          "hidden_dropout_prob",
                                          "id2label",
                                          "initializer_range",
                                          "is_decoder",
                                          "is_llama_config",
                                          "keys_to_ignore_at_inference",
                                          "label2id",
                                          "length_penalty",
                                          "max_length",
                                          "max_new_tokens",
                                          "max_sequence_length",
                                          "max_window_layers",
                                          "min_length",
                                          "model_max_length",
                                          "name_or_path",
                                          "no_repeat_ngram_size",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_labels",
                                          "num_return_sequences",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_scores",
                                          "pad_token",
                                          "pad_token_id",
                                          "prefix",
                                          "pretraining_tp",
                                          "problem_type",
                                          "remove_invalid_values",
                                          "repetition_penalty",
                                          "resid_pdrop",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "sep_token_id",
                                          "suppress_tokens",
                                          "task_specific_params",
                                          "temperature",
                                          "tf_legacy_loss",
                                          "tokenizer_class",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "trust_remote_code",
                                          "typical_p",
                                          "unk_token_id",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_bfloat16",
                                          "use_cache",
                                          "use_flash_attn",
                                          "use_return_dict"};

/// Numbers that change nothing where they are 1.
constexpr std::string_view kFactors[] = {"embedding_multiplier",  "logit_scale",
                                         "logits_scaling",        "lm_head_multiplier",
                                         "partial_rotary_factor", "residual_multiplier"};

template <size_t n>
bool contains(const std::string_view (&names)[n], const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

const Family& read_family(const Json& json, const std::string& source) {
  const Json* type = find(json, "model_type");
  require(type != nullptr && type->is_string(), "{}: model_type: missing or not a string", source);
  const auto name = type->get<std::string>();
  const auto* family = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                    [&](const Family& f) { return f.model_type == name; });
  require(family != std::end(kFamilies),
          "{}: model_type: expected llama, mistral, qwen2 or qwen3, found \"{}\"", source, printable(name));
  if (const Json* names = find(json, "architectures")) {
    const bool known = names->is_array() && names->size() == 1 && names->front() == family->architecture;
    require(known, "{}: architectures: expected [\"{}\"], found {}", source, family->architecture,
            printable(names->dump()));
  }
  return *family;
}

/// Throws for a field that may change the mathematics and that nobody reads.
void refuse_unknown(const Json& json, const std::string& source, const Family& family) {
  for (const auto& [name, value] : json.items()) {
    const bool switched_off =
        value.is_null() || value == false || value == "" || (value.is_structured() && value.empty());
    if (switched_off || contains(kRead, name) || contains(kHarmless, name)) continue;
    if (contains(kFactors, name) && value == 1.0) continue;
    if (name == "hidden_act" && (value == "silu" || value == "swish")) continue;
    if (name == "attention_bias" && family.reads_attention_bias) continue;
    if (name == "mlp_bias" && family.reads_mlp_bias) continue;
    // Windows: read_windows() reads and refuses.
    if (name == "sliding_window" || name == "use_sliding_window") continue;
    fail("{}: {}: not supported for model_type {}, found {}", source, printable(name), family.model_type,
         printable(value.dump()));
  }
}

/// layer_types, one for each layer, as whether it has a window.
std::optional<std::vector<bool>> read_layer_types(const Json& json, const std::string& source,
                                                  const ModelConfig& config) {
  const Json* types = find(json, "layer_types");
  if (types == nullptr) return std::nullopt;
  require(types->is_array() && static_cast<int64_t>(types->size()) == config.n_layers,
          "{}: layer_types: expected {} entries (num_hidden_layers), found {}", source, config.n_layers,
          types->is_array() ? std::to_string(types->size()) : types->type_name());
  std::vector<bool> windowed;
  for (const Json& type : *types) {
    require(type == "full_attention" || type == "sliding_attention",
            "{}: layer_types: expected \"full_attention\" or \"sliding_attention\", found {}", source,
            printable(type.dump()));
    windowed.push_back(type == "sliding_attention");
  }
  return windowed;
}

void read_windows(const Json& json, const std::string& source, const Family& family, ModelConfig& config) {
  constexpr int64_t kDefaultWindow = 4096;
  const auto types = read_layer_types(json, source, config);
  const bool has_window = find(json, "sliding_window") != nullptr || !json.contains("sliding_window");
  const bool used = flag(json, source, "use_sliding_window", false);
  switch (family.window) {
    case Window::never:
      // A window that is switched off explicitly means none.
      require(!used, "{}: use_sliding_window: not supported for model_type {}, found true", source,
              family.model_type);
      require(find(json, "sliding_window") == nullptr || json.contains("use_sliding_window"),
              "{}: sliding_window: not supported for model_type {}, found {}", source, family.model_type,
              printable(json.value("sliding_window", Json()).dump()));
      break;
    case Window::always:
      if (!has_window) break;
      require(
          used || find(json, "use_sliding_window") == nullptr,
          "{}: use_sliding_window: model_type {} has the window that sliding_window says (null: none), found "
          "false",
          source, family.model_type);
      config.sliding_window = dimension(json, source, "sliding_window", &kDefaultWindow);
      break;
    case Window::by_layer: {
      if (!used || !has_window) break;
      config.sliding_window = dimension(json, source, "sliding_window", &kDefaultWindow);
      const Json* first = find(json, "max_window_layers");
      constexpr int64_t kDefaultFirst = 28;
      // 0 is good here: all layers.
      const bool all = first != nullptr && first->is_number_integer() && *first == 0;
      config.first_window_layer = all ? 0 : dimension(json, source, "max_window_layers", &kDefaultFirst);
      if (types) config.layer_has_window = *types;
      break;
    }
  }
  for (int64_t i = 0; types && i < config.n_layers; ++i) {
    const bool windowed = (*types)[static_cast<size_t>(i)];
    require(windowed == (config.window_of(i) > 0),
            "{}: layer_types: layer {} is \"{}\", which is not what model_type {} does with these values of "
            "sliding_window and use_sliding_window",
            source, i, windowed ? "sliding_attention" : "full_attention", family.model_type);
  }
}

void read_shape(const Json& json, const std::string& source, const Family& family, ModelConfig& config) {
  config.hidden = dimension(json, source, "hidden_size");
  config.intermediate = dimension(json, source, "intermediate_size");
  config.n_layers = dimension(json, source, "num_hidden_layers");
  config.n_heads = dimension(json, source, "num_attention_heads");
  const bool given = json.contains("num_key_value_heads");
  const int64_t kv_heads = given || family.kv_heads == 0 ? config.n_heads : family.kv_heads;
  config.n_kv_heads = dimension(json, source, "num_key_value_heads", &kv_heads);
  // A null is not the default of qwen3 but no head_dim.
  const bool default_dim = family.head_dim != 0 && !json.contains("head_dim");
  const int64_t head_dim = default_dim ? family.head_dim : config.hidden / config.n_heads;
  require(default_dim || find(json, "head_dim") != nullptr || config.hidden % config.n_heads == 0,
          "{}: hidden_size: expected a multiple of num_attention_heads ({}) without a head_dim, found {}",
          source, config.n_heads, config.hidden);
  config.head_dim = dimension(json, source, "head_dim", &head_dim);
  config.vocab = dimension(json, source, "vocab_size");
  require(config.vocab <= sampling::kMaxVocabulary, "{}: vocab_size: expected at most {}, found {}", source,
          sampling::kMaxVocabulary, config.vocab);
  config.max_positions = dimension(json, source, "max_position_embeddings", &family.positions);
  require(config.n_heads % config.n_kv_heads == 0,
          "{}: num_key_value_heads: expected a divisor of num_attention_heads ({}), found {}", source,
          config.n_heads, config.n_kv_heads);
  require(config.head_dim >= 2 && config.head_dim % 2 == 0 && config.head_dim <= 1024,
          "{}: head_dim: expected an even number from 2 to 1024, found {}", source, config.head_dim);
  // No product of two of these may overflow further on.
  constexpr int64_t kLargest = config_fields::kLargestDimension;
  require(config.n_heads * config.head_dim <= kLargest,
          "{}: num_attention_heads * head_dim: expected at most {}, found {}", source, kLargest,
          config.n_heads * config.head_dim);
}

}  // namespace

int64_t ModelConfig::window_of(int64_t layer) const {
  const bool windowed =
      layer_has_window.empty() ? layer >= first_window_layer : layer_has_window[static_cast<size_t>(layer)];
  return windowed ? sliding_window : 0;
}

int64_t ModelConfig::window_layers() const {
  if (sliding_window == 0) return 0;
  if (layer_has_window.empty()) return std::max<int64_t>(n_layers - first_window_layer, 0);
  return std::count(layer_has_window.begin(), layer_has_window.end(), true);
}

ModelConfig ModelConfig::from_json(const Json& json, const std::string& source) {
  require(json.is_object(), "{}: expected an object, found {}", source, json.type_name());
  const Family& family = read_family(json, source);
  refuse_unknown(json, source, family);
  ModelConfig config;
  config.model_type = family.model_type;
  read_shape(json, source, family, config);
  config.rms_norm_eps = config_fields::positive(json, source, "rms_norm_eps", 1e-6f);
  read_rope(json, source, config);
  config.tied_embeddings = flag(json, source, "tie_word_embeddings", false);
  const bool attention_bias = family.reads_attention_bias && flag(json, source, "attention_bias", false);
  config.qkv_bias = family.qkv_bias || attention_bias;
  config.o_bias = attention_bias;
  config.mlp_bias = family.reads_mlp_bias && flag(json, source, "mlp_bias", false);
  config.head_norms = family.head_norms;
  read_windows(json, source, family, config);
  return config;
}

}  // namespace atom
