#include "eval/log_likelihood.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>

namespace atom {
namespace {

constexpr size_t kLanes = 16;

/// e^x for x <= 0. Plain multiplications and additions without a branch, so that the loop becomes vector code
/// on any processor (numerics::exp needs fused multiply-adds, a library call without AVX2). Range reduction
/// by a two-part log(2) and a degree-6 polynomial (Cephes expf).
inline float exp_of_negative(float x) {
  // Below this the result would be subnormal; e^-87 is nothing beside the largest term, which is 1. NaN stays
  // NaN.
  const float bounded = x < -87.0f ? -87.0f : x;
  // Adding and subtracting 1.5 * 2^23 rounds to nearest even.
  constexpr float kMagic = 12582912.0f;
  const float shifted = bounded * 1.44269504088896341f + kMagic;
  const float n = shifted - kMagic;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * r) * r + r + 1.0f;
  // The low bits of `shifted` hold n as an integer.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  return y * std::bit_cast<float>(exponent);
}

float maximum(std::span<const float> x) {
  std::array<float, kLanes> lanes;
  lanes.fill(-INFINITY);
  const size_t whole = x.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  }
  for (size_t i = whole; i < x.size(); ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes.begin(), lanes.end());
}

/// Sum of e^(x - largest).
double sum_of_exp(std::span<const float> x, float largest) {
  // Short enough that rounding of the float sums stays far below the contract's 1e-6.
  constexpr size_t kBlock = 64 * kLanes;
  double total = 0.0;
  size_t i = 0;
  while (i + kLanes <= x.size()) {
    const size_t end = std::min(i + kBlock, x.size() / kLanes * kLanes);
    std::array<float, kLanes> lanes{};
    for (; i < end; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) lanes[j] += exp_of_negative(x[i + j] - largest);
    }
    for (const float lane : lanes) total += lane;
  }
  for (; i < x.size(); ++i) total += exp_of_negative(x[i] - largest);
  return total;
}

}  // namespace

double log_likelihood(std::span<const float> logits, int32_t target) {
  assert(target >= 0 && static_cast<size_t>(target) < logits.size());
  const float largest = maximum(logits);
  if (!std::isfinite(largest)) return NAN;
  const float chosen = logits[static_cast<size_t>(target)];
  return static_cast<double>(chosen) - static_cast<double>(largest) - std::log(sum_of_exp(logits, largest));
}

}  // namespace atom
