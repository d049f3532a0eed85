#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"
#include "kernels/numerics.h"

/// Integer scales: all scales of a row of weights, or of a token's activations, are small integer multiples
/// of one number, the row's (token's) unit. Then all groups of a product, and its outliers, add up in int32,
/// exactly and in any order: S = sum of (kx qx)(kw qw), y = float(S) * (ux * uw). After the two-level scales
/// of QServe (Lin et al. 2024, arXiv 2405.04532, section 4.1, weights per channel and group), here for both
/// operands and the outliers. docs/numerics.md.
namespace atom::integer_scales {

/// The largest multiplier of a group: |multiplier * INT4| stays within INT8.
inline constexpr int kMostOfGroup = 16;
/// The largest multipliers of outliers.
inline constexpr int kMostOfOutlierWeights = 4;
inline constexpr int kMostOfOutlierActivations = 64;

/// Whether int32 holds the sum of any operands with so many channels.
ATOM_HOST_DEVICE constexpr bool fits(int64_t k_normal, int64_t n_outlier) {
  constexpr int64_t kOutlierProduct = int64_t{127} * 127 * kMostOfOutlierWeights * kMostOfOutlierActivations;
  return k_normal * 128 * 128 + n_outlier * kOutlierProduct <= INT32_MAX;
}

/// The largest multiplier of a group of activations: one scale a token where they are INT8.
ATOM_HOST_DEVICE constexpr int most_of_activations(int bits) {
  return bits == 4 ? kMostOfGroup : 1;
}

/// The unit of a token: of its groups' scales (numerics::symmetric_scale) the largest is `largest`, and
/// `outlier` is its outliers' scale. Both are values of fp16; the divisors are powers of two, so the unit and
/// its multiples are exact.
ATOM_HOST_DEVICE inline float activation_unit(float largest, float outlier, int most) {
  const float of_groups = largest * (1.0f / static_cast<float>(most));
  const float of_outliers = outlier * (1.0f / static_cast<float>(kMostOfOutlierActivations));
  return of_groups > of_outliers ? of_groups : of_outliers;
}

/// The multiplier nearest to a group's scale, in [1, most]; inverse = inverse_scale(unit).
ATOM_HOST_DEVICE inline float group_multiplier(float scale, float inverse, int most) {
  return static_cast<float>(numerics::quantize(scale, inverse, 1.0f, static_cast<float>(most)));
}

/// The smallest multiplier that reaches the outliers' scale, in [1, most]: outliers are not clipped.
ATOM_HOST_DEVICE inline float outlier_multiplier(float scale, float inverse, int most) {
  const float reached = ceilf(scale * inverse);
  return fminf(fmaxf(reached, 1.0f), static_cast<float>(most));
}

/// The unit of a row of weights: the least value not below largest / 16 and outlier / 4 whose multiples up to
/// 16 are values of fp16, that is, 7 significant bits or a multiple of 2^-24.
ATOM_HOST_DEVICE inline float weight_unit(float largest, float outlier) {
  const float of_groups = largest * (1.0f / kMostOfGroup);
  const float of_outliers = outlier * (1.0f / kMostOfOutlierWeights);
  const float least = of_groups > of_outliers ? of_groups : of_outliers;
  if (least < 0x1.0p-18f) return ceilf(least * 0x1.0p24f) * 0x1.0p-24f;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(least) + 0x1FFFFu) & ~0x1FFFFu);
}

/// A finite fp16 that is not negative (or is -0) as a multiple of 2^-24.
ATOM_HOST_DEVICE inline int64_t steps_of(uint16_t half) {
  const int exponent = half >> 10 & 0x1F;
  const int64_t mantissa = half & 0x3FF;
  return exponent == 0 ? mantissa : (mantissa + 1024) << (exponent - 1);
}
ATOM_HOST_DEVICE inline float from_steps(int64_t steps) {
  return static_cast<float>(steps) * 0x1.0p-24f;
}

ATOM_HOST_DEVICE inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/// The steps of a row's unit, from its scales as the checkpoint has them: their greatest common divisor (a
/// multiple of the unit that they were made with). `outlier`: the outliers' scale; 0 where there is none.
/// 0 for a row of zeros.
ATOM_HOST_DEVICE inline int64_t unit_steps(const uint16_t* scales, int64_t groups, uint16_t outlier) {
  int64_t divisor = steps_of(outlier);
  for (int64_t g = 0; g < groups; ++g) divisor = common_divisor(steps_of(scales[g]), divisor);
  return divisor;
}

/// The multiplier of a scale; `unit` in steps.
ATOM_HOST_DEVICE inline int64_t multiplier_of(uint16_t scale, int64_t unit) {
  return unit == 0 ? 0 : steps_of(scale) / unit;
}

/// Whether a row's scales are such multiples.
ATOM_HOST_DEVICE inline bool are_integer(const uint16_t* scales, int64_t groups, uint16_t outlier) {
  const int64_t unit = unit_steps(scales, groups, outlier);
  if (multiplier_of(outlier, unit) > kMostOfOutlierWeights) return false;
  for (int64_t g = 0; g < groups; ++g) {
    if (scales[g] > 0x8000 || multiplier_of(scales[g], unit) > kMostOfGroup) return false;
  }
  return outlier <= 0x8000;
}

}  // namespace atom::integer_scales
