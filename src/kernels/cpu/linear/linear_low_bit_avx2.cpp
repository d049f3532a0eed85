// LinearLowBit for AVX2 (Haswell, Zen and later). y [m, n] = x [m, k] * w [n, k]^T.
// Weights: layout rows8_avx2 (packed_layout.h), 8 output rows a register, 4 channels a lane. Activations:
// INT4 or INT8, one byte each. `vpmaddubsw` sums pairs of products in 16 bits; `vpmaddwd` by ones widens them
// to 32 bits, once a group of 128 for 4-bit activations, every 32 channels for 8-bit ones.
// Tile: 2 blocks of 8 rows by 4 tokens, or 4 by 1 for a single token. See low_bit_tile.inc.

#include <cstring>

#include <immintrin.h>

#include "kernels/cpu/linear/low_bit_job.h"

namespace atom::cpu {
namespace {

struct Simd {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int64_t kRows = 8;
  static constexpr int kTokens = 4;
  static constexpr bool kWide = false;

  static Int zero() { return _mm256_setzero_si256(); }
  static Float zero_float() { return _mm256_setzero_ps(); }
  static Int load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Int low_nibbles(Int v) { return _mm256_and_si256(v, _mm256_set1_epi8(0xF)); }
  static Int high_nibbles(Int v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }
  static Int broadcast4(const int8_t* p) {
    int32_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
  static Int dot(Int acc, Int u, Int s) {
    acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(u, s));
    // Keeps the compiler from adding products first and sums later, for which there are no registers.
    __asm__("" : "+x"(acc));
    return acc;
  }
  static Int widen(Int acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
  static Int set(int32_t v) { return _mm256_set1_epi32(v); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  template <int Shift>
  static Int shift_left(Int a) {
    return _mm256_slli_epi32(a, Shift);
  }
  static Int mul(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Int mul_small(Int a, Int b) { return _mm256_mullo_epi16(a, b); }
  static Int multiply_add_small(Int acc, Int a, Int b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  }
  static Int to_int(Float a) { return _mm256_cvtps_epi32(a); }
  static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static Float set(float v) { return _mm256_set1_ps(v); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float load_half(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Float load_float(const float* p) { return _mm256_loadu_ps(p); }
  static void prefetch(const float* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
  static void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
};

#include "kernels/cpu/linear/low_bit_tile.inc"

}  // namespace

void low_bit_avx2(const LowBitJob& job, int64_t row_begin, int64_t row_end, int64_t token_begin,
                  int64_t token_end) {
  run_tiles(job, row_begin, row_end, token_begin, token_end);
}

}  // namespace atom::cpu
