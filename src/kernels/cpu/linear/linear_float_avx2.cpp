// LinearFloat for f16 and bf16 weights, AVX2. y [m, n] = x [m, k] * w [n, k]^T, w row-major as in the file.
// 32 output rows at a time are transposed (16-bit elements, in registers) to a panel [k, 32] in cache; lanes
// are then output rows and a token's x[k] is broadcast, so every output is one fma chain over ascending k:
// the reference's, whatever the batch. Weights are widened as they are loaded from the panel.
// Tile: 16 rows by 6 tokens, or 32 by 1 for a single token. Driver: linear_float.cpp.

#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear/float_job.h"

namespace atom::cpu {
namespace {

struct Simd {
  using Float = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr int kTokens = 6;

  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static Float set(float v) { return _mm256_set1_ps(v); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
};

struct LoadFloat16 {
  using Element = uint16_t;
  static __m256 load(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

struct LoadBfloat16 {
  using Element = uint16_t;
  static __m256 load(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
};

#include "kernels/cpu/linear/float_panel.inc"

}  // namespace

const FloatKernel kFloat16Avx2 = {transpose, multiply<LoadFloat16>, kNarrowTokens};
const FloatKernel kBfloat16Avx2 = {transpose, multiply<LoadBfloat16>, kNarrowTokens};

}  // namespace atom::cpu
