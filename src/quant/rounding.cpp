#include "quant/rounding.h"

#include <algorithm>
#include <cmath>

#include "kernels/numerics.h"
#include "quant/parallel.h"
#include "tensor/half.h"

namespace atom {
namespace {

constexpr float kInt4Max = 7.0f;
constexpr float kInt4Low = -8.0f;
constexpr float kInt8Max = 127.0f;
constexpr int kSearchSteps = 20;
constexpr float kSmallestClip = 0.5f;

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

double weighted_error(std::span<const float> weights, const double* importance, float scale) {
  const float inverse = numerics::inverse_scale(scale);
  double error = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto q = static_cast<float>(numerics::quantize(weights[i], inverse, kInt4Low, kInt4Max));
    const double difference = static_cast<double>(weights[i]) - static_cast<double>(q * scale);
    error += importance[i] * difference * difference;
  }
  return error;
}

}  // namespace

float ScaleChooser::normal_scale(std::span<const float> weights, int64_t begin) const {
  const float largest = largest_magnitude(weights);
  if (importance_.empty()) return numerics::symmetric_scale(largest, clip_, kInt4Max);
  float best_scale = numerics::symmetric_scale(largest, 1.0f, kInt4Max);
  double best_error = weighted_error(weights, &importance_[static_cast<size_t>(begin)], best_scale);
  for (int step = 1; step <= kSearchSteps; ++step) {
    const float clip = 1.0f - (1.0f - kSmallestClip) * static_cast<float>(step) / kSearchSteps;
    const float scale = numerics::symmetric_scale(largest, clip, kInt4Max);
    const double error = weighted_error(weights, &importance_[static_cast<size_t>(begin)], scale);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

float ScaleChooser::outlier_scale(std::span<const float> weights) {
  return numerics::symmetric_scale(largest_magnitude(weights), 1.0f, kInt8Max);
}

RowQuantizer::RowQuantizer(LowBitStorage& storage, int64_t row, const ScaleChooser& chooser)
    : storage_(storage), row_(row), chooser_(chooser) {}

float RowQuantizer::quantize(std::span<const float> values, int64_t column) {
  const ChannelLayout& layout = storage_.layout;
  const int64_t normal = layout.k_normal();
  const float value = values[static_cast<size_t>(column)];
  if (column < normal) {
    if (column % layout.group == 0) {
      const int64_t count = std::min(layout.group, normal - column);
      scale_ = chooser_.normal_scale(values.subspan(static_cast<size_t>(column), static_cast<size_t>(count)),
                                     column);
      inverse_ = numerics::inverse_scale(scale_);
      storage_.scales[row_ * layout.groups() + column / layout.group] = float_to_half(scale_);
    }
    const int32_t q = numerics::quantize(value, inverse_, kInt4Low, kInt4Max);
    uint8_t& byte = storage_.values[row_ * ((normal + 1) / 2) + column / 2];
    const auto nibble = static_cast<uint8_t>(q & 0xF);
    byte = column % 2 == 0 ? static_cast<uint8_t>((byte & 0xF0) | nibble)
                           : static_cast<uint8_t>((byte & 0x0F) | (nibble << 4));
    return static_cast<float>(q) * scale_;
  }
  const int64_t at = row_ * layout.n_outlier + column - normal;
  if (layout.outlier_type == OutlierType::fp16) {
    const float kept = numerics::finite_half(value);
    storage_.outliers_fp16[at] = float_to_half(kept);
    return kept;
  }
  if (column == normal) {
    scale_ = ScaleChooser::outlier_scale(values.subspan(static_cast<size_t>(normal)));
    inverse_ = numerics::inverse_scale(scale_);
    storage_.outlier_scales[row_] = float_to_half(scale_);
  }
  const int32_t q = numerics::quantize(value, inverse_, -kInt8Max, kInt8Max);
  storage_.outliers[at] = static_cast<int8_t>(q);
  return static_cast<float>(q) * scale_;
}

LowBitStorage round_to_nearest(const DeviceContext& device, MatrixView<const float> weight,
                               const ChannelLayout& layout, const ScaleChooser& chooser) {
  LowBitStorage storage(weight.rows, layout);
  parallel_rows(device, weight.rows, [&](int64_t row) {
    RowQuantizer quantizer(storage, row, chooser);
    const std::span<const float> values(weight.row(row), static_cast<size_t>(weight.cols));
    for (int64_t column = 0; column < weight.cols; ++column) quantizer.quantize(values, column);
  });
  return storage;
}

}  // namespace atom
