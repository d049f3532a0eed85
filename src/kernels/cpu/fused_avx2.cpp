#include <cstdint>

#include <immintrin.h>

#include "kernels/cpu/fused_rows.h"

// Row primitives for AVX2 (with FMA and F16C), 8 to 32 channels a step, ragged ends by masked loads and a
// small copy. Everything but the table is local to this file: an inline function emitted here could be chosen
// by the linker for other processors. Layouts and units: fused_rows.h; operation order: kernels/numerics.h.
namespace atom::cpu {
namespace {

constexpr int64_t kLanes = 8;

alignas(64) constexpr int32_t kTailMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

/// All ones in the first `count` of 8 lanes, 0 <= count <= 8.
inline __m256i tail_mask(int64_t count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTailMasks + kLanes - count));
}

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/// Eight channels from x + i, zeros from the n-th on.
inline __m256 load(const float* x, int64_t i, int64_t n) {
  if (n - i >= kLanes) return _mm256_loadu_ps(x + i);
  if (i >= n) return _mm256_setzero_ps();
  return _mm256_maskload_ps(x + i, tail_mask(n - i));
}

inline void store(float* out, int64_t i, int64_t n, __m256 v) {
  if (n - i >= kLanes) {
    _mm256_storeu_ps(out + i, v);
  } else {
    _mm256_maskstore_ps(out + i, tail_mask(n - i), v);
  }
}

inline __m128i load_16bit(const uint16_t* x, int64_t i, int64_t n) {
  if (n - i >= kLanes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
  alignas(16) uint16_t tail[kLanes] = {};
  for (int64_t j = i; j < n; ++j) tail[j - i] = x[j];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(tail));
}

void widen_half(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) store(out, i, n, _mm256_cvtph_ps(load_16bit(x, i, n)));
}

void widen_bfloat16(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m256i wide = _mm256_cvtepu16_epi32(load_16bit(x, i, n));
    store(out, i, n, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
  }
}

void round_to_half(const float* x, int64_t n, float* out) {
  const __m256 high = _mm256_set1_ps(65504.0f);
  const __m256 low = _mm256_set1_ps(-65504.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    // The second operand is what a minimum with NaN returns: NaN stays.
    const __m256 bounded = _mm256_max_ps(low, _mm256_min_ps(high, load(x, i, n)));
    const __m128i half = _mm256_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT);
    store(out, i, n, _mm256_cvtph_ps(half));
  }
}

void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) store(x, i, n, _mm256_add_ps(load(x, i, n), load(y, i, n)));
}

float sum_of_squares(const float* x, int64_t n) {
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const __m256 a = _mm256_loadu_ps(x + i);
    const __m256 b = _mm256_loadu_ps(x + i + kLanes);
    low = _mm256_fmadd_ps(a, a, low);
    high = _mm256_fmadd_ps(b, b, high);
  }
  if (i < n) {
    const __m256 a = load(x, i, n);
    const __m256 b = load(x, i + kLanes, n);
    low = _mm256_fmadd_ps(a, a, low);
    high = _mm256_fmadd_ps(b, b, high);
  }
  const __m256 by8 = _mm256_add_ps(low, high);
  const __m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
  const __m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
  return _mm_cvtss_f32(_mm_add_ss(by2, _mm_shuffle_ps(by2, by2, 1)));
}

void normalize(const float* x, const float* weight, float factor, int64_t n, float* out) {
  const __m256 f = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < n; i += kLanes) {
    store(out, i, n, _mm256_mul_ps(_mm256_mul_ps(load(x, i, n), f), load(weight, i, n)));
  }
}

/// e^(x - n log 2): what numerics::exp multiplies by 2^n.
inline __m256 exp_fraction(__m256 x, __m256 n) {
  const __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.12194440e-4f),
                                   _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693359375f), x));
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  return _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r), _mm256_set1_ps(1.0f));
}

/// numerics::exp.
inline __m256 exp_ps(__m256 x) {
  const __m256 in_range = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_GE_OQ);
  const __m256 bounded = _mm256_min_ps(x, _mm256_set1_ps(88.3f));
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 n =
      _mm256_sub_ps(_mm256_fmadd_ps(bounded, _mm256_set1_ps(1.44269504088896341f), magic), magic);
  const __m256i exponent =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const __m256 y = _mm256_mul_ps(exp_fraction(bounded, n), _mm256_castsi256_ps(exponent));
  return _mm256_and_ps(in_range, y);
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m256 x = load(gate, i, n);
    const __m256 silu = _mm256_div_ps(x, _mm256_add_ps(one, exp_ps(_mm256_xor_ps(x, sign))));
    store(out, i, n, _mm256_mul_ps(silu, load(up, i, n)));
  }
}

void gather(const float* x, const int32_t* permutation, int64_t n, float* out) {
  // Scalar loads: vector gathers of AVX2 processors are no faster, and much slower on some.
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

inline float reduce_max(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

inline int32_t reduce_add(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

/// max|x|, NaN passed over: the second operand is what a maximum with NaN returns.
inline float max_magnitude(const float* x, int64_t n) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 even = _mm256_setzero_ps();
  __m256 odd = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), even);
    odd = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + kLanes)), odd);
  }
  for (; i < n; i += kLanes) even = _mm256_max_ps(_mm256_andnot_ps(sign, load(x, i, n)), even);
  return reduce_max(_mm256_max_ps(even, odd));
}

struct Quantizer {
  __m256 inverse;
  __m256 low;
  __m256 high;
  __m256i operator()(__m256 x) const {
    // As above: NaN gives `low`.
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(_mm256_mul_ps(x, inverse), low), high));
  }
};

/// 32 quantized channels as bytes in order.
inline __m256i pack(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Quantizes x [n] to values [n]; returns the sum.
inline int32_t quantize_range(const float* x, int64_t n, const Quantizer& quantizer, int8_t* values) {
  __m256i sum = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const __m256i a = quantizer(_mm256_loadu_ps(x + i));
    const __m256i b = quantizer(_mm256_loadu_ps(x + i + kLanes));
    const __m256i c = quantizer(_mm256_loadu_ps(x + i + 2 * kLanes));
    const __m256i d = quantizer(_mm256_loadu_ps(x + i + 3 * kLanes));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + i), pack(a, b, c, d));
  }
  if (i < n) {
    const __m256i a = quantizer(load(x, i, n));
    const __m256i b = quantizer(load(x, i + kLanes, n));
    const __m256i c = quantizer(load(x, i + 2 * kLanes, n));
    const __m256i d = quantizer(load(x, i + 3 * kLanes, n));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
    alignas(32) int8_t tail[4 * kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(tail), pack(a, b, c, d));
    for (int64_t j = i; j < n; ++j) values[j] = tail[j - i];
  }
  return reduce_add(sum);
}

// Scales of 8 groups at a time: one division and conversion instead of 8 in a row.

/// numerics::symmetric_scale.
inline __m256 symmetric_scale(__m256 largest, float clip, float high) {
  const __m256 ratio = _mm256_div_ps(_mm256_mul_ps(_mm256_set1_ps(clip), largest), _mm256_set1_ps(high));
  const __m256 bounded = _mm256_min_ps(ratio, _mm256_set1_ps(65504.0f));
  return _mm256_cvtph_ps(_mm256_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT));
}

/// The largest magnitudes of groups [first, first + count) of x [n].
struct Magnitudes {
  alignas(32) float of_groups[kLanes] = {};
  float of_all = 0.0f;

  [[gnu::always_inline]] Magnitudes(const float* x, int64_t n, int64_t group, int64_t first, int64_t count) {
    for (int64_t g = 0; g < count; ++g) {
      const int64_t begin = (first + g) * group;
      const float largest = max_magnitude(x + begin, smaller(group, n - begin));
      of_groups[g] = largest;
      of_all = largest > of_all ? largest : of_all;
    }
  }
  __m256 vector() const { return _mm256_load_ps(of_groups); }
};

/// Quantizes those groups by `scale`. Inline, because GCC leaves out vzeroupper after a call that takes
/// vectors.
[[gnu::always_inline]] inline void quantize_some(const float* x, int64_t n, int64_t group, int64_t first,
                                                 int64_t count, __m256 scale, float low, float high,
                                                 int8_t* values, int32_t* sums) {
  // numerics::inverse_scale.
  const __m256 positive = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_GT_OQ);
  alignas(32) float inverses[kLanes];
  _mm256_store_ps(inverses, _mm256_and_ps(positive, _mm256_div_ps(_mm256_set1_ps(1.0f), scale)));
  for (int64_t g = 0; g < count; ++g) {
    const int64_t begin = (first + g) * group;
    const Quantizer quantizer{_mm256_set1_ps(inverses[g]), _mm256_set1_ps(low), _mm256_set1_ps(high)};
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
    const __m256 scale = symmetric_scale(Magnitudes(x, n, group, first, count).vector(), clip, high);
    store(scales, first, groups, scale);
    quantize_some(x, n, group, first, count, scale, low, high, values, sums);
  }
}

float group_scales(const float* x, int64_t n, int64_t group, float clip, float high, float* scales) {
  const int64_t groups = groups_of(n, group);
  float largest = 0.0f;
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = smaller(kLanes, groups - first);
    const Magnitudes magnitudes(x, n, group, first, count);
    const __m256 scale = symmetric_scale(magnitudes.vector(), clip, high);
    store(scales, first, groups, scale);
    largest = magnitudes.of_all > largest ? magnitudes.of_all : largest;
  }
  // A scale does not fall where the magnitude grows, and this way is shorter than by the scales.
  return _mm256_cvtss_f32(symmetric_scale(_mm256_set1_ps(largest), clip, high));
}

void quantize_by_unit(const float* x, int64_t n, int64_t group, float unit, float most, bool upwards,
                      float low, float high, int8_t* values, float* scales, int32_t* sums) {
  const int64_t groups = groups_of(n, group);
  const __m256 inverse = _mm256_set1_ps(unit > 0.0f ? 1.0f / unit : 0.0f);
  for (int64_t first = 0; first < groups; first += kLanes) {
    const int64_t count = smaller(kLanes, groups - first);
    const __m256 ratio = _mm256_mul_ps(load(scales, first, groups), inverse);
    const __m256 bounded = _mm256_min_ps(_mm256_max_ps(ratio, _mm256_set1_ps(1.0f)), _mm256_set1_ps(most));
    const __m256 nearest = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 next = _mm256_round_ps(bounded, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const __m256 multiplier = upwards ? next : nearest;
    store(scales, first, groups, multiplier);
    const __m256 scale = _mm256_mul_ps(multiplier, _mm256_set1_ps(unit));
    quantize_some(x, n, group, first, count, scale, low, high, values, sums);
  }
}

/// NaN passed over: the second operand is what a maximum with NaN returns.
float maximum(const float* x, int64_t n) {
  const __m256 least = _mm256_set1_ps(-__builtin_inff());
  __m256 even = least;
  __m256 odd = least;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = _mm256_max_ps(_mm256_loadu_ps(x + i), even);
    odd = _mm256_max_ps(_mm256_loadu_ps(x + i + kLanes), odd);
  }
  float largest = reduce_max(_mm256_max_ps(even, odd));
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

/// numerics::exp_term.
inline __m256 exp_term(__m256 x) {
  // As above: NaN stays.
  const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-87.0f), x);
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 shifted = _mm256_fmadd_ps(bounded, _mm256_set1_ps(1.44269504088896341f), magic);
  const __m256 y = exp_fraction(bounded, _mm256_sub_ps(shifted, magic));
  const __m256i exponent =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(y, _mm256_castsi256_ps(exponent));
}

double sum_of_exp(const float* x, int64_t n, float largest) {
  constexpr int64_t kBlock = 1024;  // numerics::kExpBlock
  const __m256 top = _mm256_set1_ps(largest);
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + smaller(kBlock, n - begin);
    __m256 low = _mm256_setzero_ps();
    __m256 high = _mm256_setzero_ps();
    int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      low = _mm256_add_ps(low, exp_term(_mm256_sub_ps(_mm256_loadu_ps(x + i), top)));
      high = _mm256_add_ps(high, exp_term(_mm256_sub_ps(_mm256_loadu_ps(x + i + kLanes), top)));
    }
    if (i < end) {
      const auto add_some = [&](__m256 sum, int64_t first) {
        const int64_t count = first < end ? smaller(kLanes, end - first) : 0;
        const __m256 term = exp_term(_mm256_sub_ps(load(x, first, end), top));
        return _mm256_blendv_ps(sum, _mm256_add_ps(sum, term), _mm256_castsi256_ps(tail_mask(count)));
      };
      low = add_some(low, i);
      high = add_some(high, i + kLanes);
    }
    alignas(32) float sums[2 * kLanes];
    _mm256_store_ps(sums, low);
    _mm256_store_ps(sums + kLanes, high);
    for (int64_t j = 0; j < 2 * kLanes; ++j) total += static_cast<double>(sums[j]);
  }
  return total;
}

void relative_probabilities(const float* x, int64_t n, float largest, float inverse_temperature, float* out) {
  const __m256 top = _mm256_set1_ps(largest), inverse = _mm256_set1_ps(inverse_temperature);
  const auto terms = [&](__m256 logits) {
    return exp_term(_mm256_mul_ps(_mm256_sub_ps(logits, top), inverse));
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) _mm256_storeu_ps(out + i, terms(_mm256_loadu_ps(x + i)));
  if (i < n) _mm256_maskstore_ps(out + i, tail_mask(n - i), terms(load(x, i, n)));
}

constexpr FusedRows kRows = {widen_half,       widen_bfloat16,
                             round_to_half,    add,
                             sum_of_squares,   normalize,
                             silu_mul,         gather,
                             quantize_groups,  group_scales,
                             quantize_by_unit, maximum,
                             sum_of_exp,       relative_probabilities};

}  // namespace

const FusedRows& fused_rows_avx2() {
  return kRows;
}

}  // namespace atom::cpu
