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

/// INT4 weights of channels [begin, begin + weights.size()); importance [k] of all, null: alike.
struct Group {
  std::span<const float> weights;
  const double* importance;
  int64_t begin;
};

double weighted_error(const Group& group, float scale) {
  const float inverse = numerics::inverse_scale(scale);
  double sums[kErrorSums] = {};
  for (size_t i = 0; i < group.weights.size(); ++i) {
    const int64_t column = group.begin + static_cast<int64_t>(i);
    const double importance = group.importance == nullptr ? 1.0 : group.importance[column];
    sums[column % kErrorSums] += squared_error(group.weights[i], importance, scale, inverse);
  }
  for (int width = kErrorSums / 2; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

/// Of candidate(0) to candidate(count - 1) that with the least error, the first of equals.
template <class Candidate>
float search_scale(const Group& group, int count, const Candidate& candidate) {
  float best_scale = candidate(0);
  double best_error = weighted_error(group, best_scale);
  for (int step = 1; step < count; ++step) {
    const float scale = candidate(step);
    const double error = weighted_error(group, scale);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

}  // namespace

float normal_scale(const ScaleRule& rule, std::span<const float> weights, int64_t begin) {
  const float largest = largest_magnitude(weights);
  if (rule.importance == nullptr) return numerics::symmetric_scale(largest, rule.clip, kInt4Max);
  return search_scale({weights, rule.importance, begin}, kSearchSteps + 1,
                      [largest](int step) { return candidate_scale(largest, step); });
}

float normal_multiple(const ScaleRule& rule, std::span<const float> weights, int64_t begin, float unit) {
  return search_scale({weights, rule.importance, begin}, multiple_count(unit),
                      [unit](int step) { return candidate_multiple(unit, step); });
}

std::span<const float> RowQuantizer::group_at(std::span<const float> values, int64_t column) const {
  const int64_t count = std::min(out_.layout.group, out_.layout.k_normal() - column);
  return values.subspan(static_cast<size_t>(column), static_cast<size_t>(count));
}

float RowQuantizer::unit_of(std::span<const float> values) const {
  const int64_t normal = out_.layout.k_normal();
  float largest = 0;
  for (int64_t begin = 0; begin < normal; begin += out_.layout.group) {
    const float magnitude = largest_magnitude(group_at(values, begin));
    largest = std::max(largest, numerics::symmetric_scale(magnitude, rule_.clip, kInt4Max));
  }
  const float outlier = outlier_scale(largest_magnitude(values.subspan(static_cast<size_t>(normal))));
  return integer_scales::weight_unit(largest, outlier);
}

void RowQuantizer::set_scale(float scale, uint16_t& stored) {
  scale_ = scale;
  inverse_ = numerics::inverse_scale(scale);
  stored = float_to_half(scale);
}

float RowQuantizer::quantize(std::span<const float> values, int64_t column) {
  const ChannelLayout& layout = out_.layout;
  const int64_t normal = layout.k_normal();
  const float value = values[static_cast<size_t>(column)];
  if (column == 0 && layout.integer_scales) unit_ = unit_of(values);
  if (column < normal) {
    if (column % layout.group == 0) {
      const std::span<const float> weights = group_at(values, column);
      set_scale(layout.integer_scales ? normal_multiple(rule_, weights, column, unit_)
                                      : normal_scale(rule_, weights, column),
                out_.scales[row_ * layout.groups() + column / layout.group]);
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
    const float scale = outlier_scale(largest_magnitude(values.subspan(static_cast<size_t>(normal))));
    set_scale(layout.integer_scales ? outlier_multiple(scale, unit_) : scale, out_.outlier_scales[row_]);
  }
  const int32_t q = numerics::quantize(value, inverse_, -kInt8Max, kInt8Max);
  out_.outliers[at] = static_cast<int8_t>(q);
  return static_cast<float>(q) * scale_;
}

}  // namespace atom::cpu
