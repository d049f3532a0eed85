#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"
#include "tensor/float8.h"
#include "tensor/half.h"

/// Scalar definitions of the numeric contract (docs/numerics.md); the vector kernels repeat them operation by
/// operation, and CUDA kernels call them: compiled with --fmad=false, they give the same bits (the logarithm
/// in log_sum_exp() within an ulp of double).
namespace atom::numerics {

inline constexpr float kHalfMax = 65504.0f;

/// fp16(x) kept finite, as float. x >= 0 for scales.
ATOM_HOST_DEVICE inline float finite_half(float x) {
  const float bounded = x < -kHalfMax ? -kHalfMax : (x > kHalfMax ? kHalfMax : x);
#if defined(__CUDA_ARCH__)
  // The same rounding in two instructions.
  float rounded;
  asm("{.reg .b16 half; cvt.rn.f16.f32 half, %1; cvt.f32.f16 %0, half;}" : "=f"(rounded) : "f"(bounded));
  return rounded;
#else
  return round_to_half(bounded);
#endif
}

/// Symmetric scale of a group whose largest magnitude is max_abs: fp16(clip * max_abs / q_max).
ATOM_HOST_DEVICE inline float symmetric_scale(float max_abs, float clip, float q_max) {
  return finite_half(clip * max_abs / q_max);
}

/// The larger of `max_abs` and |x|; NaN is passed over, so that it never reaches a scale.
ATOM_HOST_DEVICE inline float max_magnitude(float max_abs, float x) {
  const float magnitude = std::fabs(x);
  return magnitude > max_abs ? magnitude : max_abs;
}

/// 1 / scale, or 0 for a scale of 0 (an all-zero group).
ATOM_HOST_DEVICE inline float inverse_scale(float scale) {
  return scale > 0.0f ? 1.0f / scale : 0.0f;
}

/// Nearest integer of x * inverse (ties to even), saturated to [low, high]; NaN gives low.
ATOM_HOST_DEVICE inline int32_t quantize(float x, float inverse, float low, float high) {
  const float scaled = x * inverse;
  const float floor_bounded = scaled > low ? scaled : low;
  const float bounded = floor_bounded < high ? floor_bounded : high;
#if defined(__CUDA_ARCH__)
  return __float2int_rn(bounded);
#else
  return static_cast<int32_t>(std::lrint(bounded));
#endif
}

/// x * inverse as FP8 (E4M3), to nearest even, saturated; NaN gives the lowest value.
ATOM_HOST_DEVICE inline uint8_t quantize_float8(float x, float inverse) {
  const float scaled = x * inverse;
  const float floor_bounded = scaled > -kFloat8Max ? scaled : -kFloat8Max;
  const float bounded = floor_bounded < kFloat8Max ? floor_bounded : kFloat8Max;
#if defined(__CUDA_ARCH__)
  // The same rounding in one instruction, the value in the low byte.
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(bounded));
  return static_cast<uint8_t>(pair);
#else
  return float_to_float8(bounded);
#endif
}

/// Scale and minimum of one token and head of an asymmetric KV cache: x = q * scale + minimum, both values of
/// fp16.
struct KvParams {
  float scale;
  float minimum;
};

/// Parameters of a row whose smallest and largest elements are `min` and `max` (NaN passed over), for q in
/// [0, levels]. A constant row (or one of NaN only) has scale 0, hence q = 0. Zero minima are +0, because
/// which of two zeros a vector minimum returns is not defined. q = quantize(x - minimum,
/// inverse_scale(scale), 0, levels).
ATOM_HOST_DEVICE inline KvParams kv_params(float min, float max, float levels) {
  const float range = max - min;
  return {range > 0.0f ? finite_half(range / levels) : 0.0f, finite_half(min) + 0.0f};
}

/// Sum of x[i]^2: 16 interleaved partial sums, partial[i mod 16] = fma(x[i], x[i], partial[i mod 16]) over
/// ascending i, folded as 8+8, 4+4, 2+2, 1+1 (the lower half + the upper one).
ATOM_HOST_DEVICE inline float sum_of_squares(const float* x, int64_t n) {
  float partial[16] = {};
  for (int64_t i = 0; i < n; ++i) partial[i % 16] = std::fma(x[i], x[i], partial[i % 16]);
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) partial[i] += partial[i + width];
  }
  return partial[0];
}

/// The factor of RMSNorm for a row of n elements: 1 / sqrt(sum / n + eps), each step rounded to float. The
/// norm itself is (x * factor) * weight.
ATOM_HOST_DEVICE inline float inverse_rms(float sum, int64_t n, float eps) {
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

/// e^(x - n log 2) for x within half a log 2 of n log 2: what exp() multiplies by 2^n. A two-part log(2),
/// then a degree-6 polynomial, all by fma (Cephes expf's scheme).
ATOM_HOST_DEVICE inline float exp_fraction(float x, float n) {
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  return std::fma(p * r, r, r) + 1.0f;
}

/// e^x. Within 2 ulp for x in [-87.3, 88.3]; 0 below, e^88.3 above, NaN gives 0.
/// Range reduction by round-to-nearest of x * log2(e).
ATOM_HOST_DEVICE inline float exp(float x) {
  if (!(x >= -87.3f)) return 0.0f;
  // From 88.38 on, n would be 128, and 2^128 is not finite.
  const float bounded = x < 88.3f ? x : 88.3f;
  // Adding and subtracting 1.5 * 2^23 rounds to nearest even.
  constexpr float kMagic = 12582912.0f;
  const float n = std::fma(bounded, 1.44269504088896341f, kMagic) - kMagic;
  const float y = exp_fraction(bounded, n);
  const auto exponent = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  return y * std::bit_cast<float>(exponent);
}

/// e^x for x <= 0, as a term of a sum whose largest term is 1: below -87 it is e^-87, and NaN stays NaN.
/// Otherwise as exp().
ATOM_HOST_DEVICE inline float exp_term(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  constexpr float kMagic = 12582912.0f;
  const float shifted = std::fma(bounded, 1.44269504088896341f, kMagic);
  const float n = shifted - kMagic;
  const float y = exp_fraction(bounded, n);
  // The low bits of `shifted` hold n as an integer.
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  return y * std::bit_cast<float>(exponent);
}

/// Elements whose terms are summed in float before they join the sum in double: so few that rounding stays
/// below 1e-6 of the sum.
inline constexpr int64_t kExpBlock = 1024;

/// Sum of exp_term(x[i] - largest): in each block of kExpBlock elements 16 interleaved float sums (element i
/// goes to sum i mod 16), added to the total in double, ascending.
ATOM_HOST_DEVICE inline double sum_of_exp(const float* x, int64_t n, float largest) {
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kExpBlock) {
    const int64_t end = begin + kExpBlock < n ? begin + kExpBlock : n;
    float partial[16] = {};
    for (int64_t i = begin; i < end; ++i) partial[i % 16] += exp_term(x[i] - largest);
    for (const float sum : partial) total += static_cast<double>(sum);
  }
  return total;
}

/// The largest element, NaN passed over; -inf when there is none.
ATOM_HOST_DEVICE inline float maximum(const float* x, int64_t n) {
  float largest = -INFINITY;
  for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

/// log of the sum of e^x[i], given the maximum and the sum of the terms; NaN where no logit is finite.
ATOM_HOST_DEVICE inline double log_sum_exp(float largest, double sum) {
  return std::isfinite(largest) ? static_cast<double>(largest) + std::log(sum) : NAN;
}

/// x * sigmoid(x) = x / (1 + e^-x).
ATOM_HOST_DEVICE inline float silu(float x) {
  return x / (1.0f + exp(-x));
}

/// The pair (x1, x2) turned by the angle of (cosine, sine). Exactly one product is rounded in each result.
struct RotatedPair {
  float first;
  float second;
};
ATOM_HOST_DEVICE inline RotatedPair rotate(float x1, float x2, float cosine, float sine) {
  return {std::fma(x1, cosine, -(x2 * sine)), std::fma(x2, cosine, x1 * sine)};
}

/// Mean 0, variance 1, within 3.5: the sum of four uniform numbers (Irwin-Hall), from the quarters of a word.
ATOM_HOST_DEVICE inline float random_normal(uint64_t word) {
  const auto quarter = [word](int i) { return static_cast<int32_t>(word >> (16 * i) & 0xFFFF); };
  const int32_t sum = quarter(0) + quarter(1) + quarter(2) + quarter(3) - 2 * 65535;
  return static_cast<float>(sum) * (1.7320508f / 65536.0f);
}

}  // namespace atom::numerics
