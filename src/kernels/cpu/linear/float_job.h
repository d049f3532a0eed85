#pragma once

#include <cstdint>

namespace atom::cpu {

/// Output rows that the 16-bit float kernels take at once.
inline constexpr int64_t kPanelRows = 32;

/// Steps of the linear op on 16-bit float weights, in the plain terms that the files of one instruction set
/// take. A panel is a piece of the weights transposed to [k, 32] so that lanes are output rows.
struct FloatKernel {
  /// Fills panel[k][r] with w[min(r, rows - 1)][k] for k in [0, k_count). w [rows, w_stride] 16-bit elements
  /// of any alignment, rows in [1, 32]. prefetch: elements from a place to the one that will be wanted next.
  void (*transpose)(const void* w, int64_t w_stride, int64_t rows, int64_t k_count, int64_t prefetch,
                    uint16_t* panel);
  /// acc[t][r] = fma(x[t][k], panel[k][r], acc[t][r]) over ascending k. acc [tokens, 32]; wide [k_count, 32]
  /// is room for the panel as float.
  void (*multiply)(const uint16_t* panel, int64_t k_count, const float* x, int64_t x_stride, int64_t tokens,
                   float* wide, float* acc);
  /// Up to so many tokens, `wide` is not used and may be null.
  int64_t narrow_tokens;
};

extern const FloatKernel kFloat16Avx2;
extern const FloatKernel kBfloat16Avx2;
extern const FloatKernel kFloat16Avx512;
extern const FloatKernel kBfloat16Avx512;

}  // namespace atom::cpu
