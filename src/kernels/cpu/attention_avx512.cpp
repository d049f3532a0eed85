// Attention for AVX-512 (F, BW, VL, DQ): 16 lanes; blocks of 6 query rows x 64 keys or channels keep 24 sums
// in registers. Shapes, layouts and algorithm: attention_kernel.inc; order of arithmetic:
// reference/attention.h. Nibbles become floats by a table lookup (vpermps uses the low 4 bits of each word):
// no mask, no conversion.

#include <immintrin.h>

#include "kernels/cpu/attention.h"

// GCC 12 takes the undefined source operand of its own intrinsics for a mistake (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define INLINE [[gnu::always_inline]] inline
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace atom::cpu::attention {
namespace {

using F = __m512;
using I = __m512i;
constexpr int64_t kWidth = 16;

constexpr int max_vectors(int rows) {
  return rows <= 6 ? 4 : 2;
}

INLINE F zero() {
  return _mm512_setzero_ps();
}
INLINE F set1(float x) {
  return _mm512_set1_ps(x);
}
INLINE F load(const float* p) {
  return _mm512_loadu_ps(p);
}
INLINE void store(float* p, F x) {
  _mm512_storeu_ps(p, x);
}
INLINE F fma(F a, F b, F c) {
  return _mm512_fmadd_ps(a, b, c);
}
INLINE F add(F a, F b) {
  return _mm512_add_ps(a, b);
}
INLINE F sub(F a, F b) {
  return _mm512_sub_ps(a, b);
}
INLINE F mul(F a, F b) {
  return _mm512_mul_ps(a, b);
}
INLINE F div(F a, F b) {
  return _mm512_div_ps(a, b);
}
INLINE F max(F a, F b) {
  return _mm512_max_ps(a, b);
}
INLINE F as_float(I x) {
  return _mm512_castsi512_ps(x);
}
INLINE float first_lane(F x) {
  return _mm512_cvtss_f32(x);
}

INLINE float horizontal_max(F x) {
  x = max(x, _mm512_shuffle_f32x4(x, x, 0x4E));
  x = max(x, _mm512_shuffle_f32x4(x, x, 0xB1));
  x = max(x, _mm512_permute_ps(x, 0x4E));
  x = max(x, _mm512_permute_ps(x, 0xB1));
  return first_lane(x);
}

/// y * 2^n where the low bits of `shifted` are those of n.
INLINE F add_exponent(F y, F shifted) {
  return as_float(
      _mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

INLINE F zero_unless_ge(F value, F x, F bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ), value);
}

/// The first `limit` lanes; -inf in the others.
INLINE F mask_from(F x, int64_t limit) {
  const auto lanes = static_cast<__mmask16>(limit >= 16 ? 0xFFFF : limit <= 0 ? 0 : (1 << limit) - 1);
  return _mm512_mask_mov_ps(set1(-__builtin_inff()), lanes, x);
}

/// -inf in the first `hidden` lanes.
INLINE F mask_before(F x, int64_t hidden) {
  const auto lanes = static_cast<__mmask16>(hidden >= 16 ? 0xFFFF : hidden <= 0 ? 0 : (1 << hidden) - 1);
  return _mm512_mask_mov_ps(x, lanes, set1(-__builtin_inff()));
}

INLINE I load_words(const uint32_t* p) {
  return _mm512_loadu_si512(p);
}

/// Low and high half of every word, from fp16.
INLINE void split_halves(I words, F& low, F& high) {
  const __m512i order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28,
                                         26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i halves = _mm512_permutexvar_epi16(order, words);
  low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
  high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
}

INLINE F small_integers() {
  return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

template <int kShift>
INLINE F nibble(I words) {
  return _mm512_permutexvar_ps(kShift == 0 ? words : _mm512_srli_epi32(words, kShift), small_integers());
}

template <int kShift>
INLINE F byte(I words) {
  const I low = kShift == 0 ? words : _mm512_srli_epi32(words, kShift);
  return _mm512_cvtepi32_ps(kShift == 24 ? low : _mm512_and_si512(low, _mm512_set1_epi32(255)));
}

INLINE I widen_bytes(const std::byte* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
INLINE F load_bytes_f32(const std::byte* p) {
  return _mm512_loadu_ps(p);
}
INLINE F load_bytes_f16(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

/// 8 bytes: their low nibbles, then their high ones.
INLINE F nibble_tail(const std::byte* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return nibble<0>(_mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi32(bytes, 4), 1));
}

INLINE void store_interleaved(float* p, F even, F odd) {
  const I low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const I high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  store(p, _mm512_permutex2var_ps(even, low, odd));
  store(p + kWidth, _mm512_permutex2var_ps(even, high, odd));
}

INLINE void store_tail(float* p, F low_high) {
  const I order = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
  store(p, _mm512_permutexvar_ps(order, low_high));
}

template <int kBytes>
INLINE __m128i load_piece(const std::byte* p) {
  const auto* words = reinterpret_cast<const __m128i*>(p);
  return kBytes == 16 ? _mm_loadu_si128(words) : _mm_loadl_epi64(words);
}

/// words[i]: word i (32 bits) at `offset` of the 16 rows. Of words, kBytes / 4 are filled.
template <int kBytes>
INLINE void load_transposed(const std::byte* const* rows, int64_t offset, I* words) {
  I quarter[4];
  UNROLL for (int i = 0; i < 4; ++i) {
    I x = _mm512_castsi128_si512(load_piece<kBytes>(rows[i] + offset));
    x = _mm512_inserti32x4(x, load_piece<kBytes>(rows[i + 4] + offset), 1);
    x = _mm512_inserti32x4(x, load_piece<kBytes>(rows[i + 8] + offset), 2);
    quarter[i] = _mm512_inserti32x4(x, load_piece<kBytes>(rows[i + 12] + offset), 3);
  }
  const I low01 = _mm512_unpacklo_epi32(quarter[0], quarter[1]);
  const I low23 = _mm512_unpacklo_epi32(quarter[2], quarter[3]);
  words[0] = _mm512_unpacklo_epi64(low01, low23);
  words[1] = _mm512_unpackhi_epi64(low01, low23);
  const I high01 = _mm512_unpackhi_epi32(quarter[0], quarter[1]);
  const I high23 = _mm512_unpackhi_epi32(quarter[2], quarter[3]);
  words[2] = _mm512_unpacklo_epi64(high01, high23);
  words[3] = _mm512_unpackhi_epi64(high01, high23);
}

#include "kernels/cpu/attention_kernel.inc"

}  // namespace

Kernels kernels_avx512() {
  return {run_tile, run_segments, merge_states};
}

}  // namespace atom::cpu::attention
