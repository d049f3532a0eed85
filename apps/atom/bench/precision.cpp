#include "precision.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "model/weights.h"
#include "quant/recipe.h"

namespace atom::cli {
namespace {

/// The linear layers of a precision: none of it for FP16.
std::optional<QuantizationConfig> quantization_of(const std::string& linears, const ModelConfig& config) {
  constexpr std::pair<const char*, const char*> kRecipes[] = {
      {"w8a8", "w8a8"}, {"fp8", "w8a8"}, {"w4a16", "w4a16"}, {"w4a8", "atom-w4a8"}, {"w4a4", "atom"}};
  const auto* found = std::find_if(std::begin(kRecipes), std::end(kRecipes),
                                   [&](const auto& entry) { return linears == entry.first; });
  if (found == std::end(kRecipes)) return std::nullopt;
  const Recipe recipe = Recipe::named(found->second);
  QuantizationConfig quantization;
  quantization.activation_bits = recipe.activation_bits;
  quantization.integer_scales = recipe.has_integer_scales();
  quantization.fp8 = linears == "fp8";
  for (const LayerInput input : kLayerInputs) {
    quantization.outlier_channels[static_cast<size_t>(input)] =
        recipe.outlier_count(shape_of(config, input).cols, name_of(input));
  }
  return quantization;
}

}  // namespace

Precision precision_of(const std::string& name, const ModelConfig& config) {
  const size_t suffix = name.find("kv");
  const std::string linears = name.substr(0, suffix);
  const std::string cache = suffix == std::string::npos ? "kv16" : name.substr(suffix);
  Precision precision{name, quantization_of(linears, config), KvFormat::f16};
  if (cache == "kv8") precision.cache = KvFormat::int8;
  if (cache == "kv4") precision.cache = KvFormat::int4;
  if ((linears == "fp16" || precision.quantization) &&
      (cache == "kv16" || precision.cache != KvFormat::f16)) {
    return precision;
  }
  throw UsageError(fmt::format("--precision: expected {}, found '{}'", kPrecisionHelp, printable(name)));
}

}  // namespace atom::cli
