// Attention for AVX2, FMA and F16C: 8 lanes; blocks of 6 query rows x 16 keys or channels keep 12 sums in
// registers. Shapes, layouts and algorithm: attention_kernel.inc; order of arithmetic: reference/attention.h.

#include <immintrin.h>

#include "kernels/cpu/attention.h"

#define INLINE [[gnu::always_inline]] inline
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace atom::cpu::attention {
namespace {

using F = __m256;
using I = __m256i;
constexpr int64_t kWidth = 8;

constexpr int max_vectors(int rows) {
  return rows <= 3 ? 4 : 2;
}

INLINE F zero() {
  return _mm256_setzero_ps();
}
INLINE F set1(float x) {
  return _mm256_set1_ps(x);
}
INLINE F load(const float* p) {
  return _mm256_loadu_ps(p);
}
INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x);
}
INLINE F fma(F a, F b, F c) {
  return _mm256_fmadd_ps(a, b, c);
}
INLINE F add(F a, F b) {
  return _mm256_add_ps(a, b);
}
INLINE F sub(F a, F b) {
  return _mm256_sub_ps(a, b);
}
INLINE F mul(F a, F b) {
  return _mm256_mul_ps(a, b);
}
INLINE F div(F a, F b) {
  return _mm256_div_ps(a, b);
}
INLINE F max(F a, F b) {
  return _mm256_max_ps(a, b);
}
INLINE F as_float(I x) {
  return _mm256_castsi256_ps(x);
}
INLINE float first_lane(F x) {
  return _mm256_cvtss_f32(x);
}

INLINE float horizontal_max(F x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  y = _mm_max_ss(y, _mm_movehdup_ps(y));
  return _mm_cvtss_f32(y);
}

/// y * 2^n where the low bits of `shifted` are those of n.
INLINE F add_exponent(F y, F shifted) {
  return as_float(
      _mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}

INLINE F zero_unless_ge(F value, F x, F bound) {
  return _mm256_and_ps(value, _mm256_cmp_ps(x, bound, _CMP_GE_OQ));
}

/// The first `limit` lanes; -inf in the others.
INLINE F mask_from(F x, int64_t limit) {
  const int bounded = limit > 8 ? 8 : limit < 0 ? 0 : static_cast<int>(limit);
  const I hidden = _mm256_cmpgt_epi32(_mm256_set_epi32(8, 7, 6, 5, 4, 3, 2, 1), _mm256_set1_epi32(bounded));
  return _mm256_blendv_ps(x, set1(-__builtin_inff()), as_float(hidden));
}

/// -inf in the first `hidden` lanes.
INLINE F mask_before(F x, int64_t hidden) {
  const int bounded = hidden > 8 ? 8 : hidden < 0 ? 0 : static_cast<int>(hidden);
  const I before = _mm256_cmpgt_epi32(_mm256_set1_epi32(bounded), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
  return _mm256_blendv_ps(x, set1(-__builtin_inff()), as_float(before));
}

INLINE I load_words(const uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
}

/// Low and high half of every word, from fp16.
INLINE void split_halves(I words, F& low, F& high) {
  const I order = _mm256_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0, 15, 14, 11, 10, 7, 6,
                                  3, 2, 13, 12, 9, 8, 5, 4, 1, 0);
  const I halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(words, order), 0xD8);
  low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
}

template <int kShift>
INLINE F nibble(I words) {
  const I low = kShift == 0 ? words : _mm256_srli_epi32(words, kShift);
  return _mm256_cvtepi32_ps(kShift == 28 ? low : _mm256_and_si256(low, _mm256_set1_epi32(15)));
}

template <int kShift>
INLINE F byte(I words) {
  const I low = kShift == 0 ? words : _mm256_srli_epi32(words, kShift);
  return _mm256_cvtepi32_ps(kShift == 24 ? low : _mm256_and_si256(low, _mm256_set1_epi32(255)));
}

INLINE I widen_bytes(const std::byte* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
INLINE F load_bytes_f32(const std::byte* p) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
}
INLINE F load_bytes_f16(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

/// head_dim is a multiple of 2 * kWidth: there is no tail.
INLINE F nibble_tail(const std::byte*) {
  return zero();
}
INLINE void store_tail(float*, F) {}

INLINE void store_interleaved(float* p, F even, F odd) {
  const F low = _mm256_unpacklo_ps(even, odd);
  const F high = _mm256_unpackhi_ps(even, odd);
  store(p, _mm256_permute2f128_ps(low, high, 0x20));
  store(p + kWidth, _mm256_permute2f128_ps(low, high, 0x31));
}

template <int kBytes>
INLINE __m128i load_piece(const std::byte* p) {
  const auto* words = reinterpret_cast<const __m128i*>(p);
  return kBytes == 16 ? _mm_loadu_si128(words) : _mm_loadl_epi64(words);
}

/// words[i]: word i (32 bits) at `offset` of the 8 rows. Of words, kBytes / 4 are filled.
template <int kBytes>
INLINE void load_transposed(const std::byte* const* rows, int64_t offset, I* words) {
  I half[4];
  UNROLL for (int i = 0; i < 4; ++i) {
    half[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_piece<kBytes>(rows[i] + offset)),
                                      load_piece<kBytes>(rows[i + 4] + offset), 1);
  }
  const I low01 = _mm256_unpacklo_epi32(half[0], half[1]);
  const I low23 = _mm256_unpacklo_epi32(half[2], half[3]);
  words[0] = _mm256_unpacklo_epi64(low01, low23);
  words[1] = _mm256_unpackhi_epi64(low01, low23);
  const I high01 = _mm256_unpackhi_epi32(half[0], half[1]);
  const I high23 = _mm256_unpackhi_epi32(half[2], half[3]);
  words[2] = _mm256_unpacklo_epi64(high01, high23);
  words[3] = _mm256_unpackhi_epi64(high01, high23);
}

#include "kernels/cpu/attention_kernel.inc"

}  // namespace

Kernels kernels_avx2() {
  return {run_tile, run_segments, merge_states};
}

}  // namespace atom::cpu::attention
