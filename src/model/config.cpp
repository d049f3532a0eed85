#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/sampling.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLargestDimension = int64_t{1} << 24;

/// The value of `name`, or null when it is absent or JSON null.
const Json* find(const Json& json, const std::string& name) {
  const auto it = json.find(name);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

int64_t dimension(const Json& json, const std::string& source, const std::string& name,
                  const int64_t* fallback = nullptr) {
  const Json* value = find(json, name);
  if (value == nullptr && fallback != nullptr) return *fallback;
  require(value != nullptr, "{}: {}: missing", source, name);
  require(value->is_number_integer(), "{}: {}: expected an integer, found {}", source, name,
          printable(value->dump()));
  const double number = value->get<double>();
  require(number >= 1 && number <= static_cast<double>(kLargestDimension),
          "{}: {}: expected 1 to {}, found {}", source, name, kLargestDimension, printable(value->dump()));
  return value->get<int64_t>();
}

float positive(const Json& json, const std::string& source, const std::string& name, float fallback) {
  const Json* value = find(json, name);
  if (value == nullptr) return fallback;
  require(value->is_number(), "{}: {}: expected a number, found {}", source, name, printable(value->dump()));
  const auto number = value->get<float>();
  require(std::isfinite(number) && number > 0, "{}: {}: expected a positive number, found {}", source, name,
          printable(value->dump()));
  return number;
}

/// Refuses `name` unless it is absent, null, or equal to the one value that is supported.
void only(const Json& json, const std::string& source, const std::string& name, const Json& supported) {
  const Json* value = find(json, name);
  require(value == nullptr || *value == supported, "{}: {}: only {} is supported, found {}", source, name,
          supported.dump(), value == nullptr ? "" : printable(value->dump()));
}

/// transformers 5 writes RoPE's settings as one object; earlier versions as rope_theta and rope_scaling.
float read_rope_theta(const Json& json, const std::string& source) {
  constexpr float kDefault = 10000.0f;
  float theta = positive(json, source, "rope_theta", kDefault);
  for (const char* field : {"rope_parameters", "rope_scaling"}) {
    const Json* object = find(json, field);
    if (object == nullptr) continue;
    require(object->is_object(), "{}: {}: expected an object, found {}", source, field, object->type_name());
    for (const auto& [name, value] : object->items()) {
      if (name == "rope_theta") continue;
      const bool plain = (name == "rope_type" || name == "type") && value == "default";
      require(plain, "{}: {}.{}: RoPE scaling is not supported, found {}", source, field, printable(name),
              printable(value.dump()));
    }
    theta = positive(*object, source, "rope_theta", theta);
  }
  return theta;
}

}  // namespace

ModelConfig ModelConfig::from_json(const Json& json, const std::string& source) {
  require(json.is_object(), "{}: expected an object, found {}", source, json.type_name());
  const Json* type = find(json, "model_type");
  require(type != nullptr && type->is_string(), "{}: model_type: missing or not a string", source);
  ModelConfig config;
  config.model_type = type->get<std::string>();
  require(config.model_type == "llama", "{}: model_type: expected \"llama\", found \"{}\"", source,
          printable(config.model_type));
  if (const Json* names = find(json, "architectures")) {
    const bool known = names->is_array() && names->size() == 1 && names->front() == "LlamaForCausalLM";
    require(known, "{}: architectures: expected [\"LlamaForCausalLM\"], found {}", source,
            printable(names->dump()));
  }
  config.hidden = dimension(json, source, "hidden_size");
  config.intermediate = dimension(json, source, "intermediate_size");
  config.n_layers = dimension(json, source, "num_hidden_layers");
  config.n_heads = dimension(json, source, "num_attention_heads");
  config.n_kv_heads = dimension(json, source, "num_key_value_heads", &config.n_heads);
  const int64_t even_share = config.hidden / config.n_heads;
  config.head_dim = dimension(json, source, "head_dim", &even_share);
  config.vocab = dimension(json, source, "vocab_size");
  require(config.vocab <= sampling::kMaxVocabulary, "{}: vocab_size: expected at most {}, found {}", source,
          sampling::kMaxVocabulary, config.vocab);
  constexpr int64_t kDefaultPositions = 2048;
  config.max_positions = dimension(json, source, "max_position_embeddings", &kDefaultPositions);
  config.rms_norm_eps = positive(json, source, "rms_norm_eps", 1e-6f);
  config.rope_theta = read_rope_theta(json, source);

  require(config.n_heads % config.n_kv_heads == 0,
          "{}: num_key_value_heads: expected a divisor of num_attention_heads ({}), found {}", source,
          config.n_heads, config.n_kv_heads);
  require(config.head_dim >= 2 && config.head_dim % 2 == 0 && config.head_dim <= 1024,
          "{}: head_dim: expected an even number from 2 to 1024, found {}", source, config.head_dim);
  // No product of two of these may overflow further on.
  require(config.n_heads * config.head_dim <= kLargestDimension,
          "{}: num_attention_heads * head_dim: expected at most {}, found {}", source, kLargestDimension,
          config.n_heads * config.head_dim);

  only(json, source, "hidden_act", "silu");
  only(json, source, "attention_bias", false);
  only(json, source, "mlp_bias", false);
  only(json, source, "sliding_window", nullptr);
  only(json, source, "use_sliding_window", false);
  if (const Json* types = find(json, "layer_types")) {
    const bool plain = types->is_array() && std::all_of(types->begin(), types->end(),
                                                        [](const Json& t) { return t == "full_attention"; });
    require(plain, "{}: layer_types: only \"full_attention\" is supported, found {}", source,
            printable(types->dump()));
  }
  only(json, source, "partial_rotary_factor", 1.0);
  only(json, source, "num_local_experts", nullptr);
  only(json, source, "final_logit_softcapping", nullptr);
  only(json, source, "attn_logit_softcapping", nullptr);
  if (const Json* tied = find(json, "tie_word_embeddings")) {
    require(tied->is_boolean(), "{}: tie_word_embeddings: expected true or false, found {}", source,
            printable(tied->dump()));
    config.tied_embeddings = tied->get<bool>();
  }
  return config;
}

}  // namespace atom
