#pragma once

#include "base/host_device.h"
#include "kernels/numerics.h"

/// What all implementations of the ops of quantization share: the ranges of low-bit weights and the search of
/// their scales.
namespace atom::quant_scales {

inline constexpr float kInt4Max = 7.0f;
inline constexpr float kInt4Low = -8.0f;
inline constexpr float kInt8Max = 127.0f;

/// The grid of clips that a search tries: step 0 is no clip, step kSearchSteps the smallest.
inline constexpr int kSearchSteps = 20;
inline constexpr float kSmallestClip = 0.5f;

ATOM_HOST_DEVICE inline float candidate_scale(float largest, int step) {
  const float clip =
      1.0f - (1.0f - kSmallestClip) * static_cast<float>(step) / static_cast<float>(kSearchSteps);
  return numerics::symmetric_scale(largest, clip, kInt4Max);
}

/// The weighted squared error of an INT4 weight.
ATOM_HOST_DEVICE inline double squared_error(float weight, double importance, float scale, float inverse) {
  const auto q = static_cast<float>(numerics::quantize(weight, inverse, kInt4Low, kInt4Max));
  const double difference = static_cast<double>(weight) - static_cast<double>(q * scale);
  return importance * difference * difference;
}

}  // namespace atom::quant_scales
