// LinearFloat for f16 and bf16 weights, AVX-512. y [m, n] = x [m, k] * w [n, k]^T, w row-major as in the
// file. As the AVX2 kernel (linear_float_avx2.cpp): panels [k, 32] of transposed 16-bit weights, lanes are
// output rows, x[k] is broadcast, every output is one fma chain over ascending k. The transposition keeps to
// 256-bit registers, whose shuffles have two ports on Intel processors where those of 512 bits have one.
// Tile: 32 rows by 12 tokens. Driver: linear_float.cpp.

#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear/float_job.h"

namespace atom::cpu {
namespace {

struct Simd {
  using Float = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr int kTokens = 12;

  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static Float set(float v) { return _mm512_set1_ps(v); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
};

struct LoadFloat16 {
  using Element = uint16_t;
  static __m512 load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

struct LoadBfloat16 {
  using Element = uint16_t;
  static __m512 load(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
};

#include "kernels/cpu/linear/float_panel.inc"

}  // namespace

const FloatKernel kFloat16Avx512 = {transpose, multiply<LoadFloat16>, kNarrowTokens};
const FloatKernel kBfloat16Avx512 = {transpose, multiply<LoadBfloat16>, kNarrowTokens};

}  // namespace atom::cpu
