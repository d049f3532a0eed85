#include <cstdint>

#include <immintrin.h>

#include "kernels/cpu/fused_rows.h"

// Row primitives for AVX-512 (F, BW, VL, DQ), 16 channels a step, ragged ends by masks. Everything but the
// table is local to this file: an inline function emitted here could be chosen by the linker for other
// processors. Layouts and units: fused_rows.h; operation order: kernels/numerics.h.
namespace atom::cpu {
namespace {

constexpr int64_t kLanes = 16;
constexpr __mmask16 kAll = 0xFFFF;

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/// Calls step(i, mask) for every 16 channels of [0, n); the mask is a constant but for the last ones.
template <class Step>
inline void for_each_vector(int64_t n, const Step& step) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) step(i, kAll);
  if (i < n) step(i, static_cast<__mmask16>((1u << (n - i)) - 1u));
}

void widen_half(const uint16_t* x, int64_t n, float* out) {
  for_each_vector(n, [=](int64_t i, __mmask16 mask) {
    _mm512_mask_storeu_ps(out + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, x + i)));
  });
}

void widen_bfloat16(const uint16_t* x, int64_t n, float* out) {
  for_each_vector(n, [=](int64_t i, __mmask16 mask) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x + i));
    _mm512_mask_storeu_epi32(out + i, mask, _mm512_slli_epi32(wide, 16));
  });
}

void round_to_half(const float* x, int64_t n, float* out) {
  const __m512 high = _mm512_set1_ps(65504.0f);
  const __m512 low = _mm512_set1_ps(-65504.0f);
  for_each_vector(n, [=](int64_t i, __mmask16 mask) {
    // The second operand is what a minimum with NaN returns: NaN stays.
    const __m512 bounded = _mm512_max_ps(low, _mm512_min_ps(high, _mm512_maskz_loadu_ps(mask, x + i)));
    const __m256i half = _mm512_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_cvtph_ps(half));
  });
}

void add(float* x, const float* y, int64_t n) {
  for_each_vector(n, [&](int64_t i, __mmask16 mask) {
    const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
    _mm512_mask_storeu_ps(x + i, mask, sum);
  });
}

float sum_of_squares(const float* x, int64_t n) {
  __m512 partial = _mm512_setzero_ps();
  for_each_vector(n, [&](int64_t i, __mmask16 mask) {
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
    partial = _mm512_fmadd_ps(v, v, partial);
  });
  const __m256 by8 = _mm256_add_ps(_mm512_castps512_ps256(partial), _mm512_extractf32x8_ps(partial, 1));
  const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
  const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
  return _mm_cvtss_f32(_mm_add_ss(by2, _mm_shuffle_ps(by2, by2, 1)));
}

void normalize(const float* x, const float* weight, float factor, int64_t n, float* out) {
  const __m512 f = _mm512_set1_ps(factor);
  for_each_vector(n, [=](int64_t i, __mmask16 mask) {
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), f);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
  });
}

/// e^(x - n log 2): what numerics::exp multiplies by 2^n.
inline __m512 exp_fraction(__m512 x, __m512 n) {
  const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f),
                                   _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x));
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  return _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0f));
}

/// numerics::exp.
inline __m512 exp_ps(__m512 x) {
  const __mmask16 in_range = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_GE_OQ);
  const __m512 bounded = _mm512_min_ps(x, _mm512_set1_ps(88.3f));
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  const __m512 n =
      _mm512_sub_ps(_mm512_fmadd_ps(bounded, _mm512_set1_ps(1.44269504088896341f), magic), magic);
  const __m512i exponent =
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_maskz_mul_ps(in_range, exp_fraction(bounded, n), _mm512_castsi512_ps(exponent));
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  const __m512 one = _mm512_set1_ps(1.0f);
  for_each_vector(n, [=](int64_t i, __mmask16 mask) {
    const __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 silu = _mm512_div_ps(x, _mm512_add_ps(one, exp_ps(_mm512_xor_ps(x, sign))));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
  });
}

void gather(const float* x, const int32_t* permutation, int64_t n, float* out) {
  // Scalar loads: vgatherdps is no faster here, and several times slower where microcode guards it.
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float a = x[permutation[i]];
    const float b = x[permutation[i + 1]];
    const float c = x[permutation[i + 2]];
    const float d = x[permutation[i + 3]];
    out[i] = a;
    out[i + 1] = b;
    out[i + 2] = c;
    out[i + 3] = d;
  }
  for (; i < n; ++i) out[i] = x[permutation[i]];
}

/// max|x|, NaN passed over: the second operand is what a maximum with NaN returns.
inline float max_magnitude(const float* x, int64_t n) {
  __m512 even = _mm512_setzero_ps();
  __m512 odd = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i)), even);
    odd = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i + kLanes)), odd);
  }
  for_each_vector(n - i, [&](int64_t j, __mmask16 mask) {
    even = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(mask, x + i + j)), even);
  });
  return _mm512_reduce_max_ps(_mm512_max_ps(even, odd));
}

struct Quantizer {
  __m512 inverse;
  __m512 low;
  __m512 high;
  __m512i operator()(__m512 x) const {
    // As above: NaN gives `low`.
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(x, inverse), low), high));
  }
};

/// Quantizes x [n] to values [n]; returns the sum.
inline int32_t quantize_range(const float* x, int64_t n, const Quantizer& quantizer, int8_t* values) {
  // Packing keeps to 128-bit lanes: dword 4 * lane + j holds four channels of the j-th vector.
  const __m512i lanes_in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i sum = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const __m512i a = quantizer(_mm512_loadu_ps(x + i));
    const __m512i b = quantizer(_mm512_loadu_ps(x + i + kLanes));
    const __m512i c = quantizer(_mm512_loadu_ps(x + i + 2 * kLanes));
    const __m512i d = quantizer(_mm512_loadu_ps(x + i + 3 * kLanes));
    sum = _mm512_add_epi32(sum, _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)));
    const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    _mm512_storeu_si512(values + i, _mm512_permutexvar_epi32(lanes_in_order, packed));
  }
  for_each_vector(n - i, [&](int64_t j, __mmask16 mask) {
    const __m512i q = quantizer(_mm512_maskz_loadu_ps(mask, x + i + j));
    sum = _mm512_add_epi32(sum, q);
    _mm_mask_storeu_epi8(values + i + j, mask, _mm512_cvtepi32_epi8(q));
  });
  return _mm512_reduce_add_epi32(sum);
}

inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}

// Scales of 16 groups at a time: one division and conversion instead of 16 in a row.

/// numerics::symmetric_scale.
inline __m512 symmetric_scale(__m512 largest, float clip, float high) {
  const __m512 ratio = _mm512_div_ps(_mm512_mul_ps(_mm512_set1_ps(clip), largest), _mm512_set1_ps(high));
  const __m512 bounded = _mm512_min_ps(ratio, _mm512_set1_ps(65504.0f));
  return _mm512_cvtph_ps(_mm512_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT));
}

/// The largest magnitudes of groups [first, first + count) of x [n].
struct Magnitudes {
  alignas(64) float of_groups[kLanes] = {};
  float of_all = 0.0f;

  [[gnu::always_inline]] Magnitudes(const float* x, int64_t n, int64_t group, int64_t first, int64_t count) {
    for (int64_t g = 0; g < count; ++g) {
      const int64_t begin = (first + g) * group;
      const float largest = max_magnitude(x + begin, smaller(group, n - begin));
      of_groups[g] = largest;
      of_all = largest > of_all ? largest : of_all;
    }
  }
  __m512 vector() const { return _mm512_load_ps(of_groups); }
};

/// Quantizes those groups by `scale`. Inline, because GCC leaves out vzeroupper after a call that takes
/// vectors.
[[gnu::always_inline]] inline void quantize_some(const float* x, int64_t n, int64_t group, int64_t first,
                                                 int64_t count, __m512 scale, float low, float high,
                                                 int8_t* values, int32_t* sums) {
  // numerics::inverse_scale.
  const __mmask16 positive = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
  alignas(64) float inverses[kLanes];
  _mm512_store_ps(inverses, _mm512_maskz_div_ps(positive, _mm512_set1_ps(1.0f), scale));
  for (int64_t g = 0; g < count; ++g) {
    const int64_t begin = (first + g) * group;
    const Quantizer quantizer{_mm512_set1_ps(inverses[g]), _mm512_set1_ps(low), _mm512_set1_ps(high)};
    sums[first + g] = quantize_range(x + begin, smaller(group, n - begin), quantizer, values + begin);
  }
}

inline int64_t groups_of(int64_t n, int64_t group) {
  return n == 0 ? 0 : (n + group - 1) / group;
}

void quantize_groups(const float* x, int64_t n, int64_t group, float clip, float low, float high,
                     int8_t* values, float* scales, int32_t* sums) {
  const int64_t groups = groups_of(n, group);
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = smaller(kLanes, groups - first);
    const __m512 scale = symmetric_scale(Magnitudes(x, n, group, first, count).vector(), clip, high);
    _mm512_mask_storeu_ps(scales + first, first_lanes(count), scale);
    quantize_some(x, n, group, first, count, scale, low, high, values, sums);
  }
}

float group_scales(const float* x, int64_t n, int64_t group, float clip, float high, float* scales) {
  const int64_t groups = groups_of(n, group);
  float largest = 0.0f;
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = smaller(kLanes, groups - first);
    const Magnitudes magnitudes(x, n, group, first, count);
    const __m512 scale = symmetric_scale(magnitudes.vector(), clip, high);
    _mm512_mask_storeu_ps(scales + first, first_lanes(count), scale);
    largest = magnitudes.of_all > largest ? magnitudes.of_all : largest;
  }
  // A scale does not fall where the magnitude grows, and this way is shorter than by the scales.
  return _mm512_cvtss_f32(symmetric_scale(_mm512_set1_ps(largest), clip, high));
}

void quantize_by_unit(const float* x, int64_t n, int64_t group, float unit, float most, bool upwards,
                      float low, float high, int8_t* values, float* scales, int32_t* sums) {
  const int64_t groups = groups_of(n, group);
  const __m512 inverse = _mm512_set1_ps(unit > 0.0f ? 1.0f / unit : 0.0f);
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = smaller(kLanes, groups - first);
    const __m512 ratio = _mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(count), scales + first), inverse);
    const __m512 bounded = _mm512_min_ps(_mm512_max_ps(ratio, _mm512_set1_ps(1.0f)), _mm512_set1_ps(most));
    const __m512 nearest = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 next = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const __m512 multiplier = upwards ? next : nearest;
    _mm512_mask_storeu_ps(scales + first, first_lanes(count), multiplier);
    const __m512 scale = _mm512_mul_ps(multiplier, _mm512_set1_ps(unit));
    quantize_some(x, n, group, first, count, scale, low, high, values, sums);
  }
}

/// NaN passed over: the second operand is what a maximum with NaN returns.
float maximum(const float* x, int64_t n) {
  const __m512 least = _mm512_set1_ps(-__builtin_inff());
  __m512 largest = least;
  for_each_vector(n, [&](int64_t i, __mmask16 mask) {
    largest = _mm512_max_ps(_mm512_mask_loadu_ps(least, mask, x + i), largest);
  });
  return _mm512_reduce_max_ps(largest);
}

/// numerics::exp_term.
inline __m512 exp_term(__m512 x) {
  // As above: NaN stays.
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  const __m512 shifted = _mm512_fmadd_ps(bounded, _mm512_set1_ps(1.44269504088896341f), magic);
  const __m512 y = exp_fraction(bounded, _mm512_sub_ps(shifted, magic));
  const __m512i exponent =
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(y, _mm512_castsi512_ps(exponent));
}

double sum_of_exp(const float* x, int64_t n, float largest) {
  constexpr int64_t kBlock = 1024;  // numerics::kExpBlock
  const __m512 top = _mm512_set1_ps(largest);
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    __m512 partial = _mm512_setzero_ps();
    for_each_vector(smaller(kBlock, n - begin), [&](int64_t i, __mmask16 mask) {
      const __m512 term = exp_term(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + begin + i), top));
      partial = _mm512_mask_add_ps(partial, mask, partial, term);
    });
    alignas(64) float sums[kLanes];
    _mm512_store_ps(sums, partial);
    for (int64_t i = 0; i < kLanes; ++i) total += static_cast<double>(sums[i]);
  }
  return total;
}

void relative_probabilities(const float* x, int64_t n, float largest, float inverse_temperature, float* out) {
  const __m512 top = _mm512_set1_ps(largest), inverse = _mm512_set1_ps(inverse_temperature);
  for_each_vector(n, [&](int64_t i, __mmask16 mask) {
    const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), top);
    _mm512_mask_storeu_ps(out + i, mask, exp_term(_mm512_mul_ps(below, inverse)));
  });
}

constexpr FusedRows kRows = {widen_half,       widen_bfloat16,
                             round_to_half,    add,
                             sum_of_squares,   normalize,
                             silu_mul,         gather,
                             quantize_groups,  group_scales,
                             quantize_by_unit, maximum,
                             sum_of_exp,       relative_probabilities};

}  // namespace

const FusedRows& fused_rows_avx512() {
  return kRows;
}

}  // namespace atom::cpu
