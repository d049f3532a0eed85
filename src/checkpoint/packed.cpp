#include "checkpoint/packed.h"

#include <cassert>
#include <set>

#include "base/error.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

/// Reads the fields of one JSON object and remembers which were asked for, so that unknown ones can be
/// refused.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    require(object.is_object(), "{}: expected an object, found {}", where_, object.type_name());
  }

  const Json& field(const std::string& name) {
    seen_.insert(name);
    const auto it = object_.find(name);
    require(it != object_.end(), "{}.{}: missing", where_, name);
    return *it;
  }

  std::string text(const std::string& name) {
    const Json& value = field(name);
    require(value.is_string(), "{}.{}: expected a string, found {}", where_, name, value.type_name());
    return value.get<std::string>();
  }

  const Json& object(const std::string& name) {
    const Json& value = field(name);
    require(value.is_object(), "{}.{}: expected an object, found {}", where_, name, value.type_name());
    return value;
  }

  bool boolean(const std::string& name) {
    const Json& value = field(name);
    require(value.is_boolean(), "{}.{}: expected true or false, found {}", where_, name, value.type_name());
    return value.get<bool>();
  }

  int64_t integer(const std::string& name, int64_t low, int64_t high) {
    const Json& value = field(name);
    require(value.is_number_integer(), "{}.{}: expected an integer, found {}", where_, name,
            value.type_name());
    const bool fits =
        !value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    const int64_t number = fits ? value.get<int64_t>() : high + 1;
    require(fits && number >= low && number <= high, "{}.{}: expected {} to {}, found {}", where_, name, low,
            high, value.dump());
    return number;
  }

  int one_of(const std::string& name, std::initializer_list<int> allowed) {
    const auto number = integer(name, INT32_MIN, INT32_MAX);
    std::string list;
    for (const int value : allowed) {
      if (number == value) return value;
      list += (list.empty() ? "" : ", ") + std::to_string(value);
    }
    fail("{}.{}: expected one of {}, found {}", where_, name, list, number);
  }

  void refuse_unknown() const {
    for (const auto& [name, value] : object_.items()) {
      require(seen_.count(name) != 0, "{}.{}: unknown field", where_, printable(name));
    }
  }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> seen_;
};

}  // namespace

std::string name_of(LayerInput input) {
  switch (input) {
    case LayerInput::qkv:
      return "qkv";
    case LayerInput::o:
      return "o";
    case LayerInput::gate_up:
      return "gate_up";
    case LayerInput::down:
      return "down";
  }
  return "?";
}

std::vector<std::string> linears_of(LayerInput input) {
  switch (input) {
    case LayerInput::qkv:
      return {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    case LayerInput::o:
      return {"self_attn.o_proj"};
    case LayerInput::gate_up:
      return {"mlp.gate_proj", "mlp.up_proj"};
    case LayerInput::down:
      return {"mlp.down_proj"};
  }
  return {};
}

std::string layer_prefix(int64_t layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

Json QuantizationConfig::to_json() const {
  assert(!fp8);
  Json outliers;
  for (const LayerInput input : kLayerInputs)
    outliers[name_of(input)] = outlier_channels[static_cast<size_t>(input)];
  return {{"quant_method", "atom"},
          {"version", kPackedVersion},
          {"recipe", recipe},
          {"weight_bits", weight_bits},
          {"activation_bits", activation_bits},
          {"group_size", group_size},
          {"scales", integer_scales ? "integer" : "fp16"},
          {"outlier_channels", outliers},
          {"outlier_bits", outlier_bits},
          {"kv_cache_bits", kv_cache_bits},
          {"rotate_keys", rotate_keys},
          {"lm_head_bits", lm_head_bits},
          {"calibration", calibration}};
}

QuantizationConfig QuantizationConfig::from_json(const Json& json, const std::string& source) {
  FieldReader reader(json, source + ": quantization_config");
  const std::string method = reader.text("quant_method");
  require(method == "atom",
          "{}: quantization_config.quant_method: expected \"atom\", \"gptq\" or \"awq\", found \"{}\"",
          source, printable(method));
  const auto version = reader.integer("version", 0, INT32_MAX);
  require(version >= 1 && version <= kPackedVersion,
          "{}: quantization_config.version: expected 1 to {}, found {}", source, kPackedVersion, version);
  QuantizationConfig config;
  config.recipe = reader.text("recipe");
  config.weight_bits = reader.one_of("weight_bits", {4});
  config.activation_bits = reader.one_of("activation_bits", {4, 8, 16});
  config.group_size = reader.integer("group_size", 0, 1 << 20);
  if (version >= 2) {
    const std::string scales = reader.text("scales");
    require(scales == "integer" || scales == "fp16",
            "{}: quantization_config.scales: expected \"integer\" or \"fp16\", found \"{}\"", source,
            printable(scales));
    config.integer_scales = scales == "integer";
  }
  FieldReader outliers(reader.field("outlier_channels"), source + ": quantization_config.outlier_channels");
  for (const LayerInput input : kLayerInputs) {
    config.outlier_channels[static_cast<size_t>(input)] = outliers.integer(name_of(input), 0, 1 << 20);
  }
  outliers.refuse_unknown();
  config.outlier_bits = reader.one_of("outlier_bits", {8, 16});
  config.kv_cache_bits = reader.one_of("kv_cache_bits", {4, 8, 16});
  config.rotate_keys = reader.boolean("rotate_keys");
  config.lm_head_bits = reader.one_of("lm_head_bits", {8, 16});
  require(!config.integer_scales || (config.outlier_bits == 8 && config.activation_bits != 16),
          "{}: quantization_config.scales: integer scales need INT8 outliers and quantized activations",
          source);
  config.calibration = reader.object("calibration");
  reader.refuse_unknown();
  return config;
}

PackedNames::PackedNames(const std::string& prefix)
    : values(prefix + ".qweight"),
      scales(prefix + ".scales"),
      outliers(prefix + ".outlier_qweight"),
      outlier_scales(prefix + ".outlier_scales"),
      outliers_fp16(prefix + ".outlier_weight") {}

PackedInputNames::PackedInputNames(int64_t layer, LayerInput input) {
  const std::string prefix = layer_prefix(layer) + name_of(input) + "_input.";
  permutation = prefix + "permutation";
  activation_clip = prefix + "activation_clip";
}

}  // namespace atom
