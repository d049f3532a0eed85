#include "kernels/cpu/quant/row_quantizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/numerics.h"
#include "kernels/quant_scales.h"
#include "tensor/half.h"

namespace atom::cpu {
namespace {

using namespace quant_scales;

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

double weighted_error(std::span<const float> weights, const double* importance, float scale) {
  const float inverse = numerics::inverse_scale(scale);
  double error = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    error += squared_error(weights[i], importance[i], scale, inverse);
  }
  return error;
}

}  // namespace

float normal_scale(const ScaleRule& rule, std::span<const float> weights, int64_t begin) {
  const float largest = largest_magnitude(weights);
  if (rule.importance == nullptr) return numerics::symmetric_scale(largest, rule.clip, kInt4Max);
  const double* importance = rule.importance + begin;
  float best_scale = candidate_scale(largest, 0);
  double best_error = weighted_error(weights, importance, best_scale);
  for (int step = 1; step <= kSearchSteps; ++step) {
    const float scale = candidate_scale(largest, step);
    const double error = weighted_error(weights, importance, scale);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

float outlier_scale(std::span<const float> weights) {
  return numerics::symmetric_scale(largest_magnitude(weights), 1.0f, kInt8Max);
}

float RowQuantizer::quantize(std::span<const float> values, int64_t column) {
  const ChannelLayout& layout = out_.layout;
  const int64_t normal = layout.k_normal();
  const float value = values[static_cast<size_t>(column)];
  if (column < normal) {
    if (column % layout.group == 0) {
      const int64_t count = std::min(layout.group, normal - column);
      scale_ = normal_scale(rule_, values.subspan(static_cast<size_t>(column), static_cast<size_t>(count)),
                            column);
      inverse_ = numerics::inverse_scale(scale_);
      out_.scales[row_ * layout.groups() + column / layout.group] = float_to_half(scale_);
    }
    const int32_t q = numerics::quantize(value, inverse_, kInt4Low, kInt4Max);
    uint8_t& byte = out_.values[row_ * out_.row_bytes() + column / 2];
    const auto nibble = static_cast<uint8_t>(q & 0xF);
    byte = column % 2 == 0 ? static_cast<uint8_t>((byte & 0xF0) | nibble)
                           : static_cast<uint8_t>((byte & 0x0F) | (nibble << 4));
    return static_cast<float>(q) * scale_;
  }
  const int64_t at = row_ * layout.n_outlier + column - normal;
  if (layout.outlier_type == OutlierType::fp16) {
    const float kept = numerics::finite_half(value);
    out_.outliers_fp16[at] = float_to_half(kept);
    return kept;
  }
  if (column == normal) {
    scale_ = outlier_scale(values.subspan(static_cast<size_t>(normal)));
    inverse_ = numerics::inverse_scale(scale_);
    out_.outlier_scales[row_] = float_to_half(scale_);
  }
  const int32_t q = numerics::quantize(value, inverse_, -kInt8Max, kInt8Max);
  out_.outliers[at] = static_cast<int8_t>(q);
  return static_cast<float>(q) * scale_;
}

}  // namespace atom::cpu
