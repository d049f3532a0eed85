#pragma once

#include <cmath>

#include "base/host_device.h"
#include "kernels/integer_scales.h"
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

/// The weighted squared error of an INT4 weight. Errors of a group add up in kErrorSums partial sums, that of
/// column c in sum c mod kErrorSums, columns ascending; these are folded 16 + 16, 8 + 8, 4 + 4, 2 + 2, 1 + 1.
inline constexpr int kErrorSums = 32;
ATOM_HOST_DEVICE inline double squared_error(float weight, double importance, float scale, float inverse) {
  const auto q = static_cast<float>(numerics::quantize(weight, inverse, kInt4Low, kInt4Max));
  const double difference = static_cast<double>(weight) - static_cast<double>(q * scale);
  return importance * difference * difference;
}

/// What GPTQ weighs the squared error of a column by: quantizing it with error e adds (e / diagonal)^2 to the
/// squared error of the outputs, once the columns behind it are adjusted. `diagonal` is U[c, c] > 0.
ATOM_HOST_DEVICE inline double gptq_importance(float diagonal) {
  return 1.0 / (static_cast<double>(diagonal) * static_cast<double>(diagonal));
}

/// The scale of INT8 outliers: never clipped.
ATOM_HOST_DEVICE inline float outlier_scale(float largest) {
  return numerics::symmetric_scale(largest, 1.0f, kInt8Max);
}

// Integer scales (kernels/integer_scales.h) of a row. Its unit is chosen before anything of it is quantized:
// integer_scales::weight_unit() of the largest of what its groups ask for, each by its rule's clip, and of
// outlier_scale(). A group's multiplier is chosen when its turn comes, from the values at that moment: the
// one with the least error.

/// The largest multiplier up to `most` whose multiple is a finite fp16.
ATOM_HOST_DEVICE inline int most_multiples(float unit, int most) {
  const float finite = floorf(numerics::kHalfMax / unit);
  return finite < static_cast<float>(most) ? static_cast<int>(finite) : most;
}

/// The scales that a group can have, ascending; of those with the least error it takes the first.
ATOM_HOST_DEVICE inline int multiple_count(float unit) {
  return most_multiples(unit, integer_scales::kMostOfGroup);
}
ATOM_HOST_DEVICE inline float candidate_multiple(float unit, int step) {
  return unit * static_cast<float>(step + 1);
}

/// The scale of the outliers, where `scale` is what their values ask for: the least multiple not below it.
ATOM_HOST_DEVICE inline float outlier_multiple(float scale, float unit) {
  const int most = most_multiples(unit, integer_scales::kMostOfOutlierWeights);
  return unit * integer_scales::outlier_multiplier(scale, numerics::inverse_scale(unit), most);
}

}  // namespace atom::quant_scales
