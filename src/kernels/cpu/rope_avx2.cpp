#include <cstdint>

#include <immintrin.h>

#include "kernels/cpu/rope_rows.h"

// Head primitives of RopeAppend for AVX2 (with FMA and F16C); head_dim is a multiple of 16. Everything but
// the table is local to this file: an inline function emitted here could be chosen by the linker for other
// processors. Layouts and units: rope_rows.h and kv_view.h; operation order: kernels/reference/rope.h.
namespace atom::cpu {
namespace {

constexpr int64_t kLanes = 8;

void rotate(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const __m256 c = _mm256_loadu_ps(cos + i);
    const __m256 s = _mm256_loadu_ps(sin + i);
    for (int64_t h = 0; h < heads; ++h) {
      float* first = x + h * head_dim + i;
      float* second = first + half;
      const __m256 x1 = _mm256_loadu_ps(first);
      const __m256 x2 = _mm256_loadu_ps(second);
      _mm256_storeu_ps(first, _mm256_fmsub_ps(x1, c, _mm256_mul_ps(x2, s)));
      _mm256_storeu_ps(second, _mm256_fmadd_ps(x2, c, _mm256_mul_ps(x1, s)));
    }
  }
}

/// Distances 1, 2, 4: the lanes blended in are b of (a + b, a - b).
inline __m256 transform_vector(__m256 v) {
  __m256 swapped = _mm256_permute_ps(v, 0xB1);
  v = _mm256_blend_ps(_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v), 0xAA);
  swapped = _mm256_permute_ps(v, 0x4E);
  v = _mm256_blend_ps(_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v), 0xCC);
  swapped = _mm256_permute2f128_ps(v, v, 0x01);
  return _mm256_blend_ps(_mm256_add_ps(v, swapped), _mm256_sub_ps(swapped, v), 0xF0);
}

/// A head of kVectors * 8 channels, held in registers.
template <int kVectors>
inline void hadamard_head(float* x, __m256 norm) {
  __m256 v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = transform_vector(_mm256_loadu_ps(x + i * kLanes));
  for (int distance = 1; distance < kVectors; distance *= 2) {
    for (int i = 0; i < kVectors; ++i) {
      if ((i & distance) != 0) continue;
      const __m256 a = v[i];
      const __m256 b = v[i + distance];
      v[i] = _mm256_add_ps(a, b);
      v[i + distance] = _mm256_sub_ps(a, b);
    }
  }
  for (int i = 0; i < kVectors; ++i) _mm256_storeu_ps(x + i * kLanes, _mm256_mul_ps(v[i], norm));
}

inline void hadamard_head(float* x, int64_t head_dim, __m256 norm) {
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    _mm256_storeu_ps(x + i, transform_vector(_mm256_loadu_ps(x + i)));
  }
  for (int64_t distance = kLanes; distance < head_dim; distance *= 2) {
    const __m256 scale = 2 * distance == head_dim ? norm : _mm256_set1_ps(1.0f);
    for (int64_t block = 0; block < head_dim; block += 2 * distance) {
      for (int64_t i = block; i < block + distance; i += kLanes) {
        const __m256 a = _mm256_loadu_ps(x + i);
        const __m256 b = _mm256_loadu_ps(x + i + distance);
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_add_ps(a, b), scale));
        _mm256_storeu_ps(x + i + distance, _mm256_mul_ps(_mm256_sub_ps(a, b), scale));
      }
    }
  }
}

void hadamard(float* x, int64_t heads, int64_t head_dim, float norm) {
  const __m256 factor = _mm256_set1_ps(norm);
  for (int64_t h = 0; h < heads; ++h) {
    float* head = x + h * head_dim;
    if (head_dim == 8 * kLanes) {
      hadamard_head<8>(head, factor);
    } else {
      hadamard_head(head, head_dim, factor);
    }
  }
}

/// x bounded to what FP16 holds; NaN stays, because the second operand is what a minimum with NaN returns.
inline __m256 bounded(__m256 x) {
  return _mm256_max_ps(_mm256_set1_ps(-65504.0f), _mm256_min_ps(_mm256_set1_ps(65504.0f), x));
}

void store_half(const float* x, int64_t n, uint16_t* row) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m128i half = _mm256_cvtps_ph(bounded(_mm256_loadu_ps(x + i)), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i), half);
  }
}

inline float round_to_half(float x) {
  const float bounded = x < -65504.0f ? -65504.0f : (x > 65504.0f ? 65504.0f : x);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(bounded), _MM_FROUND_TO_NEAREST_INT)));
}

inline uint16_t half_bits(float x) {
  return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
}

/// q = round((x - minimum) * inverse), 16 at a time, as bytes.
struct Quantizer {
  __m256 minimum;
  __m256 inverse;
  __m256 levels;
  __m256i eight(const float* x) const {
    const __m256 scaled = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x), minimum), inverse);
    // The second operand is what a maximum with NaN returns: NaN gives 0.
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(scaled, _mm256_setzero_ps()), levels));
  }
  __m128i operator()(const float* x) const {
    const __m256i words = _mm256_packs_epi32(eight(x), eight(x + kLanes));
    const __m256i in_order = _mm256_permute4x64_epi64(words, 0xD8);
    return _mm_packus_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1));
  }
};

/// Chooses and stores the parameters of a row (numerics::kv_params).
inline Quantizer choose_params(const float* x, int64_t n, float levels, uint16_t* params) {
  const float infinity = __builtin_inff();
  __m256 mins = _mm256_set1_ps(infinity);
  __m256 maxs = _mm256_set1_ps(-infinity);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m256 v = _mm256_loadu_ps(x + i);
    mins = _mm256_min_ps(v, mins);
    maxs = _mm256_max_ps(v, maxs);
  }
  __m128 low = _mm_min_ps(_mm256_castps256_ps128(mins), _mm256_extractf128_ps(mins, 1));
  __m128 high = _mm_max_ps(_mm256_castps256_ps128(maxs), _mm256_extractf128_ps(maxs, 1));
  low = _mm_min_ps(low, _mm_movehl_ps(low, low));
  high = _mm_max_ps(high, _mm_movehl_ps(high, high));
  const float min = _mm_cvtss_f32(_mm_min_ss(low, _mm_shuffle_ps(low, low, 1)));
  const float max = _mm_cvtss_f32(_mm_max_ss(high, _mm_shuffle_ps(high, high, 1)));
  const float range = max - min;
  const float scale = range > 0.0f ? round_to_half(range / levels) : 0.0f;
  const float minimum = round_to_half(min) + 0.0f;
  params[0] = half_bits(scale);
  params[1] = half_bits(minimum);
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  return {_mm256_set1_ps(minimum), _mm256_set1_ps(inverse), _mm256_set1_ps(levels)};
}

void store_int8(const float* x, int64_t n, uint8_t* row, uint16_t* params) {
  const Quantizer quantizer = choose_params(x, n, 255.0f, params);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i), quantizer(x + i));
  }
}

void store_int4(const float* x, int64_t n, uint8_t* row, uint16_t* params) {
  const Quantizer quantizer = choose_params(x, n, 15.0f, params);
  // Even channel * 1 + odd channel * 16.
  const __m128i nibbles = _mm_set1_epi16(0x1001);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __m128i words = _mm_maddubs_epi16(quantizer(x + i), nibbles);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(row + i / 2), _mm_packus_epi16(words, words));
  }
}

constexpr RopeRows kRows = {2 * kLanes, rotate, hadamard, store_half, store_int8, store_int4};

}  // namespace

const RopeRows& rope_rows_avx2() {
  return kRows;
}

}  // namespace atom::cpu
