#pragma once

#include <cstdint>

/// The row primitives of which the fused CPU ops are made, once per instruction set. This header is included
/// by files compiled for one instruction set, so it declares plain functions only: no inline code may come
/// from here.
namespace atom::cpu {

/// All arrays are unaligned and of any length; each function equals its scalar definition bit for bit
/// (kernels/numerics.h).
struct FusedRows {
  /// out[i] = x[i] widened.
  void (*widen_half)(const uint16_t* x, int64_t n, float* out);
  void (*widen_bfloat16)(const uint16_t* x, int64_t n, float* out);
  /// out[i] = fp16(x[i]) widened.
  void (*round_to_half)(const float* x, int64_t n, float* out);
  /// x[i] += y[i].
  void (*add)(float* x, const float* y, int64_t n);
  /// numerics::sum_of_squares.
  float (*sum_of_squares)(const float* x, int64_t n);
  /// out[i] = (x[i] * factor) * weight[i]; out may be x.
  void (*normalize)(const float* x, const float* weight, float factor, int64_t n, float* out);
  /// out[i] = silu(gate[i]) * up[i].
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  /// out[i] = x[permutation[i]].
  void (*gather)(const float* x, const int32_t* permutation, int64_t n, float* out);
  /// Symmetric quantization of x [n] in groups of `group` (the last one shorter): a scale of
  /// fp16(clip * max|x| / high) and the sum of the quantized values for each; values in [low, high].
  void (*quantize_groups)(const float* x, int64_t n, int64_t group, float clip, float low, float high,
                          int8_t* values, float* scales, int32_t* sums);
  /// The same in two steps, for integer scales: first all scales; returns the largest, 0 where there is none.
  float (*group_scales)(const float* x, int64_t n, int64_t group, float clip, float high, float* scales);
  /// Then scales to multipliers of `unit` in [1, most], the nearest or, if `upwards`, the least that reaches
  /// the scale (integer_scales::group_multiplier, outlier_multiplier), and values by multiplier * unit.
  void (*quantize_by_unit)(const float* x, int64_t n, int64_t group, float unit, float most, bool upwards,
                           float low, float high, int8_t* values, float* scales, int32_t* sums);
  /// numerics::maximum and numerics::sum_of_exp.
  float (*maximum)(const float* x, int64_t n);
  double (*sum_of_exp)(const float* x, int64_t n, float largest);
  /// out[i] = sampling::relative_probability(x[i], largest, inverse_temperature).
  void (*relative_probabilities)(const float* x, int64_t n, float largest, float inverse_temperature,
                                 float* out);
};

const FusedRows& fused_rows_avx2();
const FusedRows& fused_rows_avx512();

}  // namespace atom::cpu
