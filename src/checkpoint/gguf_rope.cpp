#include "checkpoint/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

/// The double that a float32 of the file was written from.
double as_written(double value) {
  const auto narrow = static_cast<float>(value);
  return static_cast<double>(narrow) == value ? decimal(narrow) : value;
}

class RopeKeys {
 public:
  RopeKeys(const GgufFile& file, const GgufModel& model) : file_(file), prefix_(model.name + ".rope.") {}

  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  std::optional<double> positive(std::string_view name) const {
    const auto value = file_.find_float(key(name));
    require(!value || (std::isfinite(*value) && *value > 0), "{}: {}: expected a positive number, found {}",
            file_.name(), key(name), value.value_or(0));
    return value ? std::optional(as_written(*value)) : std::nullopt;
  }

  /// Refuses another value than `expected`.
  void only(std::string_view name, double expected) const {
    const double found = file_.find_float(key(name)).value_or(expected);
    require(found == expected, "{}: {}: expected {}, found {}, which is not supported", file_.name(),
            key(name), expected, found);
  }

  const GgufFile& file() const { return file_; }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

Json make_yarn(const RopeKeys& keys, const GgufModel& model, double factor) {
  Json json{{"rope_type", "yarn"}, {"factor", factor}};
  const std::string original = keys.key("scaling.original_context_length");
  const uint64_t positions = keys.file().find_uint(original).value_or(model.context);
  require(positions >= 1 && positions <= (uint64_t{1} << 30), "{}: {}: expected 1 to 2^30, found {}",
          keys.file().name(), original, positions);
  json["original_max_position_embeddings"] = positions;
  // GGUF's factor multiplies what YaRN makes of the scaling factor; Hugging Face's is the product.
  if (const double attention = keys.positive("scaling.attn_factor").value_or(1); attention != 1) {
    json["attention_factor"] = attention * (factor > 1 ? 0.1 * std::log(factor) + 1 : 1);
  }
  if (const auto beta = keys.positive("scaling.yarn_beta_fast")) json["beta_fast"] = *beta;
  if (const auto beta = keys.positive("scaling.yarn_beta_slow")) json["beta_slow"] = *beta;
  keys.only("scaling.yarn_ext_factor", 1);
  keys.only("scaling.yarn_attn_factor", 1);
  keys.only("scaling.yarn_log_multiplier", 0);
  return json;
}

/// From the metadata alone.
Json read_scaling(const RopeKeys& keys, const GgufModel& model) {
  const GgufFile& file = keys.file();
  // Earlier files had no type and another name for the factor.
  const std::string type(file.find_string(keys.key("scaling.type")).value_or("linear"));
  const auto given = file.find_float(keys.key("scaling.factor"));
  const bool none = given && *given == 0;  // How some writers say that there is none.
  const double factor =
      none ? 1 : keys.positive("scaling.factor").value_or(keys.positive("scale_linear").value_or(1));
  if (type == "yarn") return make_yarn(keys, model, factor);
  require(type == "none" || type == "linear",
          "{}: {}: expected \"none\", \"linear\" or \"yarn\", found \"{}\", which is not supported",
          file.name(), keys.key("scaling.type"), printable(type));
  keys.only("scaling.attn_factor", 1);
  if (type == "none" || factor == 1) return nullptr;
  return {{"rope_type", "linear"}, {"factor", factor}};
}

/// Whether these are what {"rope_type": "llama3"} divides by, but for the last bits: writers compute them in
/// float32, each in its own way.
bool equals_llama3(const std::vector<float>& factors, const GgufModel& model, double factor,
                   double original_positions, double low_frequency_factor, double high_frequency_factor) {
  constexpr double kTolerance = 1e-5;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double exponent = 2 * static_cast<double>(i) / static_cast<double>(model.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(model.rope_theta, exponent);
    const double smooth = std::clamp((original_positions / wavelength - low_frequency_factor) /
                                         (high_frequency_factor - low_frequency_factor),
                                     0.0, 1.0);
    const double expected = 1 / ((1 - smooth) / factor + smooth);
    if (std::fabs(static_cast<double>(factors[i]) - expected) > kTolerance * expected) return false;
  }
  return true;
}

Json make_factors(const std::vector<float>& factors, const GgufModel& model) {
  if (std::all_of(factors.begin(), factors.end(), [](float f) { return f == 1; })) return nullptr;
  // The lowest frequency is divided by the whole factor.
  const double factor = decimal(factors.back());
  constexpr int kPositions = 8192;
  constexpr double kLow = 1, kHigh = 4;
  if (equals_llama3(factors, model, factor, kPositions, kLow, kHigh)) {
    return {{"rope_type", "llama3"},
            {"factor", factor},
            {"low_freq_factor", kLow},
            {"high_freq_factor", kHigh},
            {"original_max_position_embeddings", kPositions}};
  }
  Json json{{"rope_type", "frequency_factors"}};
  for (const float value : factors) json["factors"].push_back(decimal(value));
  return json;
}

}  // namespace

Json make_rope_scaling(const GgufParts& parts, const GgufModel& model) {
  const RopeKeys keys(parts.metadata(), model);
  Json scaling = read_scaling(keys, model);
  const GgufTensor* tensor = parts.find(kRopeFactors);
  if (tensor == nullptr) return scaling;
  const std::string& file = parts.metadata().name();
  const auto size = static_cast<int64_t>(model.head_dim / 2);
  require(tensor->type == GgmlType::f32 && tensor->shape == std::vector<int64_t>{size},
          "{}: tensor \"{}\": expected {} values of type F32, found {} of {}", file, kRopeFactors, size,
          tensor->elements(), layout_of(tensor->type).name);
  std::vector<float> factors(static_cast<size_t>(size));
  dequantize(tensor->type, tensor->bytes, factors);
  for (const float factor : factors) {
    require(std::isfinite(factor) && factor > 0, "{}: tensor \"{}\": expected positive numbers, found {}",
            file, kRopeFactors, factor);
  }
  Json by_factors = make_factors(factors, model);
  require(scaling.is_null() || by_factors.is_null(), "{}: tensor \"{}\": not supported beside {}", file,
          kRopeFactors, keys.key("scaling.type"));
  return by_factors.is_null() ? scaling : by_factors;
}

}  // namespace atom
