#include "model/config_rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <set>
#include <utility>

#include "base/error.h"
#include "model/config.h"
#include "model/config_fields.h"

namespace atom {
namespace {

using config_fields::find;
using config_fields::Json;
using Kind = RopeScaling::Kind;

constexpr float kDefaultTheta = 10000.0f;
/// Of every parameter: more would be no scaling but a mistake, and products of several still fit a float.
constexpr double kLargest = 1e9;

/// The parameters of one RoPE object; remembers which were asked for.
class Parameters {
 public:
  Parameters(const Json* object, std::string where) : object_(object), where_(std::move(where)) {}

  const std::string& where() const { return where_; }

  /// The value, or null when it is absent or JSON null.
  const Json* value(const std::string& name) {
    seen_.insert(name);
    return object_ == nullptr ? nullptr : find(*object_, name);
  }

  /// A number from `least` to kLargest; without it the fallback, and where that is NaN an Error.
  double number(const std::string& name, double least, double fallback) {
    const Json* found = value(name);
    if (found == nullptr) {
      require(!std::isnan(fallback), "{}.{}: missing", where_, name);
      return fallback;
    }
    require(found->is_number(), "{}.{}: expected a number, found {}", where_, name, printable(found->dump()));
    const double number = found->get<double>();
    // A NaN fails, too.
    require(number >= least && number <= kLargest, "{}.{}: expected a number from {} to {}, found {}", where_,
            name, least, kLargest, printable(found->dump()));
    return number;
  }
  double required(const std::string& name, double least) {
    return number(name, least, std::numeric_limits<double>::quiet_NaN());
  }

  void refuse_unknown(const std::string& kind) const {
    if (object_ == nullptr) return;
    for (const auto& [name, found] : object_->items()) {
      const bool switched_off = found.is_null() || found == false;
      require(seen_.count(name) != 0 || switched_off, "{}.{}: not a parameter of \"{}\", found {}", where_,
              printable(name), kind, printable(found.dump()));
    }
  }

 private:
  const Json* object_;
  std::string where_;
  std::set<std::string> seen_;
};

/// The least that a factor or ratio may be where 0 is not one.
constexpr double kLeast = 1e-6;

Kind kind_of(const std::string& name, const std::string& where) {
  for (const Kind kind : {Kind::none, Kind::linear, Kind::llama3, Kind::yarn, Kind::frequency_factors}) {
    if (name == name_of(kind)) return kind;
  }
  fail("{}: \"{}\" is not supported, expected default, linear, llama3, yarn or frequency_factors", where,
       printable(name));
}

/// "rope_type" is the newer name, "type" the older: two of them have to agree.
Kind read_kind(Parameters& parameters) {
  std::string found;
  for (const char* name : {"type", "rope_type"}) {
    const Json* value = parameters.value(name);
    if (value == nullptr) continue;
    const std::string where = parameters.where() + "." + name;
    require(value->is_string(), "{}: expected a string, found {}", where, printable(value->dump()));
    const auto kind = value->get<std::string>();
    kind_of(kind, where);
    require(found.empty() || found == kind, "{}: differs from type, found \"{}\" and \"{}\"", where, kind,
            found);
    found = kind;
  }
  return found.empty() ? Kind::none : kind_of(found, parameters.where());
}

/// The magnitude that YaRN's paper suggests for queries and keys, section 3.4.
double yarn_magnitude(double factor, double weight) {
  return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

void read_yarn(Parameters& parameters, const ModelConfig& config, RopeScaling& scaling) {
  // Without a factor it is the ratio of the two lengths (DeepSeek).
  const double ratio = static_cast<double>(config.max_positions) / scaling.original_positions;
  scaling.factor = parameters.number("factor", 1, std::max(ratio, 1.0));
  scaling.beta_fast = parameters.number("beta_fast", kLeast, scaling.beta_fast);
  scaling.beta_slow = parameters.number("beta_slow", kLeast, scaling.beta_slow);
  require(scaling.beta_fast >= scaling.beta_slow,
          "{}.beta_fast: expected at least beta_slow, found {} and {}", parameters.where(), scaling.beta_fast,
          scaling.beta_slow);
  if (const Json* truncate = parameters.value("truncate")) {
    require(truncate->is_boolean(), "{}.truncate: expected true or false, found {}", parameters.where(),
            printable(truncate->dump()));
    scaling.truncate = truncate->get<bool>();
  }
  const double mscale = parameters.number("mscale", 0, 0);
  const double mscale_all = parameters.number("mscale_all_dim", 0, 0);
  const double suggested = mscale != 0 && mscale_all != 0 ? yarn_magnitude(scaling.factor, mscale) /
                                                                yarn_magnitude(scaling.factor, mscale_all)
                                                          : yarn_magnitude(scaling.factor, 1);
  scaling.attention_factor = parameters.number("attention_factor", kLeast, suggested);
  require(config.rope_theta > 1, "{}: rope_theta of yarn: expected more than 1, found {}", parameters.where(),
          config.rope_theta);
}

void read_llama3(Parameters& parameters, RopeScaling& scaling) {
  scaling.factor = parameters.required("factor", 1);
  scaling.low_frequency_factor = parameters.required("low_freq_factor", kLeast);
  scaling.high_frequency_factor = parameters.required("high_freq_factor", kLeast);
  require(scaling.high_frequency_factor > scaling.low_frequency_factor,
          "{}.high_freq_factor: expected more than low_freq_factor, found {} and {}", parameters.where(),
          scaling.high_frequency_factor, scaling.low_frequency_factor);
}

void read_factors(Parameters& parameters, const ModelConfig& config, RopeScaling& scaling) {
  const Json* factors = parameters.value("factors");
  const auto expected = static_cast<size_t>(config.head_dim / 2);
  require(factors != nullptr && factors->is_array() && factors->size() == expected,
          "{}.factors: expected {} numbers, half of head_dim, found {}", parameters.where(), expected,
          factors == nullptr    ? "nothing"
          : factors->is_array() ? std::to_string(factors->size())
                                : std::string(factors->type_name()));
  for (const Json& factor : *factors) {
    const double number = factor.is_number() ? factor.get<double>() : 0.0;
    require(number >= kLeast && number <= kLargest, "{}.factors: expected numbers from {} to {}, found {}",
            parameters.where(), kLeast, kLargest, printable(factor.dump()));
    scaling.factors.push_back(number);
  }
}

/// The frequency of channel pair i without scaling.
double plain_frequency(const ModelConfig& config, int64_t i) {
  const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
  return std::pow(static_cast<double>(config.rope_theta), exponent);
}

double llama3_frequency(const RopeScaling& scaling, double frequency) {
  const double rotations = scaling.original_positions * frequency / (2 * std::numbers::pi);
  if (rotations > scaling.high_frequency_factor) return frequency;
  if (rotations < scaling.low_frequency_factor) return frequency / scaling.factor;
  const double kept = (rotations - scaling.low_frequency_factor) /
                      (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

/// Pairs below the first number keep their frequency, those from the second on have it divided by the factor.
std::pair<double, double> yarn_ramp(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto dim = static_cast<double>(config.head_dim);
  // The (fractional) pair of channels that turns `rotations` times within the original length.
  const auto pair_of = [&](double rotations) {
    return dim * std::log(scaling.original_positions / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(static_cast<double>(config.rope_theta)));
  };
  double low = pair_of(scaling.beta_fast), high = pair_of(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  // The width that transformers gives a ramp that has none.
  if (low == high) high += 0.001;
  return {low, high};
}

}  // namespace

std::string name_of(RopeScaling::Kind kind) {
  switch (kind) {
    case Kind::none:
      return "default";
    case Kind::linear:
      return "linear";
    case Kind::llama3:
      return "llama3";
    case Kind::yarn:
      return "yarn";
    case Kind::frequency_factors:
      return "frequency_factors";
  }
  return "?";
}

void read_rope(const Json& json, const std::string& source, ModelConfig& config) {
  // transformers takes rope_scaling where it is not empty, else rope_parameters.
  const Json* object = nullptr;
  std::string field = "rope_parameters";
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const Json* found = find(json, name);
    if (found == nullptr) continue;
    require(found->is_object(), "{}: {}: expected an object, found {}", source, name, found->type_name());
    if (found->empty()) continue;
    require(object == nullptr || *object == *found, "{}: {}: differs from rope_parameters", source, name);
    object = found;
    field = name;
  }
  Parameters parameters(object, source + ": " + field);
  config.rope_theta = config_fields::positive(json, source, "rope_theta", kDefaultTheta);
  if (parameters.value("rope_theta") != nullptr) {
    config.rope_theta =
        config_fields::positive(*object, source + ": " + field, "rope_theta", config.rope_theta);
  }
  RopeScaling& scaling = config.rope_scaling;
  scaling.kind = read_kind(parameters);
  if (const Json* partial = parameters.value("partial_rotary_factor")) {
    require(*partial == 1.0, "{}.partial_rotary_factor: only 1.0 is supported, found {}", parameters.where(),
            printable(partial->dump()));
  }
  if (scaling.kind == Kind::llama3 || scaling.kind == Kind::yarn) {
    // Beside the object it has priority (transformers); without either it is the length of the model.
    const auto length = static_cast<double>(config.max_positions);
    scaling.original_positions = parameters.number("original_max_position_embeddings", 1, length);
    const auto inside = static_cast<int64_t>(scaling.original_positions);
    scaling.original_positions = static_cast<double>(
        config_fields::dimension(json, source, "original_max_position_embeddings", &inside));
  }
  switch (scaling.kind) {
    case Kind::none:
      break;
    case Kind::linear:
      scaling.factor = parameters.required("factor", 1);
      break;
    case Kind::llama3:
      read_llama3(parameters, scaling);
      break;
    case Kind::yarn:
      read_yarn(parameters, config, scaling);
      break;
    case Kind::frequency_factors:
      read_factors(parameters, config, scaling);
      break;
  }
  parameters.refuse_unknown(name_of(scaling.kind));
}

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto [low, high] = scaling.kind == Kind::yarn ? yarn_ramp(config) : std::pair{0.0, 0.0};
  std::vector<float> frequencies;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    double frequency = plain_frequency(config, i);
    switch (scaling.kind) {
      case Kind::none:
        break;
      case Kind::linear:
        frequency /= scaling.factor;
        break;
      case Kind::llama3:
        frequency = llama3_frequency(scaling, frequency);
        break;
      case Kind::yarn: {
        const double divided = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        frequency = frequency / scaling.factor * divided + frequency * (1 - divided);
        break;
      }
      case Kind::frequency_factors:
        frequency /= scaling.factors[static_cast<size_t>(i)];
        break;
    }
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

}  // namespace atom
