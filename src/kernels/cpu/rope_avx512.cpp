#include <cstdint>

#include <immintrin.h>

#include "kernels/cpu/rope_rows.h"

// Head primitives of RopeAppend for AVX-512 (F, BW, VL, DQ); head_dim is a multiple of 32. Everything but the
// table is local to this file: an inline function emitted here could be chosen by the linker for other
// processors. Layouts and units: rope_rows.h and kv_view.h; operation order: kernels/reference/rope.h.
namespace atom::cpu {
namespace {

constexpr int64_t kLanes = 16;

void rotate(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const __m512 c = _mm512_loadu_ps(cos + i);
    const __m512 s = _mm512_loadu_ps(sin + i);
    for (int64_t h = 0; h < heads; ++h) {
      float* first = x + h * head_dim + i;
      float* second = first + half;
      const __m512 x1 = _mm512_loadu_ps(first);
      const __m512 x2 = _mm512_loadu_ps(second);
      _mm512_storeu_ps(first, _mm512_fmsub_ps(x1, c, _mm512_mul_ps(x2, s)));
      _mm512_storeu_ps(second, _mm512_fmadd_ps(x2, c, _mm512_mul_ps(x1, s)));
    }
  }
}

/// One butterfly stage inside a vector: `swapped` holds each lane's partner; the lanes of `upper` are b of
/// (a + b, a - b).
inline __m512 butterfly(__m512 x, __m512 swapped, __mmask16 upper) {
  return _mm512_mask_sub_ps(_mm512_add_ps(x, swapped), upper, swapped, x);
}

/// Distances 1, 2, 4, 8.
inline __m512 transform_vector(__m512 v) {
  v = butterfly(v, _mm512_permute_ps(v, 0xB1), 0xAAAA);
  v = butterfly(v, _mm512_permute_ps(v, 0x4E), 0xCCCC);
  v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0xB1), 0xF0F0);
  return butterfly(v, _mm512_shuffle_f32x4(v, v, 0x4E), 0xFF00);
}

/// A head of kVectors * 16 channels, held in registers.
template <int kVectors>
inline void hadamard_head(float* x, __m512 norm) {
  __m512 v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = transform_vector(_mm512_loadu_ps(x + i * kLanes));
  for (int distance = 1; distance < kVectors; distance *= 2) {
    for (int i = 0; i < kVectors; ++i) {
      if ((i & distance) != 0) continue;
      const __m512 a = v[i];
      const __m512 b = v[i + distance];
      v[i] = _mm512_add_ps(a, b);
      v[i + distance] = _mm512_sub_ps(a, b);
    }
  }
  for (int i = 0; i < kVectors; ++i) _mm512_storeu_ps(x + i * kLanes, _mm512_mul_ps(v[i], norm));
}

inline void hadamard_head(float* x, int64_t head_dim, __m512 norm) {
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    _mm512_storeu_ps(x + i, transform_vector(_mm512_loadu_ps(x + i)));
  }
  for (int64_t distance = kLanes; distance < head_dim; distance *= 2) {
    const __m512 scale = 2 * distance == head_dim ? norm : _mm512_set1_ps(1.0f);
    for (int64_t block = 0; block < head_dim; block += 2 * distance) {
      for (int64_t i = block; i < block + distance; i += kLanes) {
        const __m512 a = _mm512_loadu_ps(x + i);
        const __m512 b = _mm512_loadu_ps(x + i + distance);
        _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_add_ps(a, b), scale));
        _mm512_storeu_ps(x + i + distance, _mm512_mul_ps(_mm512_sub_ps(a, b), scale));
      }
    }
  }
}

void hadamard(float* x, int64_t heads, int64_t head_dim, float norm) {
  const __m512 factor = _mm512_set1_ps(norm);
  for (int64_t h = 0; h < heads; ++h) {
    float* head = x + h * head_dim;
    if (head_dim == 4 * kLanes) {
      hadamard_head<4>(head, factor);
    } else if (head_dim == 8 * kLanes) {
      hadamard_head<8>(head, factor);
    } else {
      hadamard_head(head, head_dim, factor);
    }
  }
}

/// x bounded to what FP16 holds; NaN stays, because the second operand is what a minimum with NaN returns.
inline __m512 bounded(__m512 x) {
  return _mm512_max_ps(_mm512_set1_ps(-65504.0f), _mm512_min_ps(_mm512_set1_ps(65504.0f), x));
}

void store_half(const float* x, int64_t n, uint16_t* row) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m256i half = _mm512_cvtps_ph(bounded(_mm512_loadu_ps(x + i)), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + i), half);
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
  __m512 minimum;
  __m512 inverse;
  __m512 levels;
  __m128i operator()(const float* x) const {
    const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x), minimum), inverse);
    // The second operand is what a maximum with NaN returns: NaN gives 0.
    const __m512 bounded = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_setzero_ps()), levels);
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(bounded));
  }
};

/// Chooses and stores the parameters of a row (numerics::kv_params).
inline Quantizer choose_params(const float* x, int64_t n, float levels, uint16_t* params) {
  const float infinity = __builtin_inff();
  __m512 mins = _mm512_set1_ps(infinity);
  __m512 maxs = _mm512_set1_ps(-infinity);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m512 v = _mm512_loadu_ps(x + i);
    mins = _mm512_min_ps(v, mins);
    maxs = _mm512_max_ps(v, maxs);
  }
  const float min = _mm512_reduce_min_ps(mins);
  const float range = _mm512_reduce_max_ps(maxs) - min;
  const float scale = range > 0.0f ? round_to_half(range / levels) : 0.0f;
  const float minimum = round_to_half(min) + 0.0f;
  params[0] = half_bits(scale);
  params[1] = half_bits(minimum);
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  return {_mm512_set1_ps(minimum), _mm512_set1_ps(inverse), _mm512_set1_ps(levels)};
}

void store_int8(const float* x, int64_t n, uint8_t* row, uint16_t* params) {
  const Quantizer quantizer = choose_params(x, n, 255.0f, params);
  for (int64_t i = 0; i < n; i += kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i), quantizer(x + i));
  }
}

void store_int4(const float* x, int64_t n, uint8_t* row, uint16_t* params) {
  const Quantizer quantizer = choose_params(x, n, 15.0f, params);
  // Even channel * 1 + odd channel * 16.
  const __m256i nibbles = _mm256_set1_epi16(0x1001);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __m256i bytes = _mm256_set_m128i(quantizer(x + i + kLanes), quantizer(x + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + i / 2),
                     _mm256_cvtepi16_epi8(_mm256_maddubs_epi16(bytes, nibbles)));
  }
}

constexpr RopeRows kRows = {2 * kLanes, rotate, hadamard, store_half, store_int8, store_int4};

}  // namespace

const RopeRows& rope_rows_avx512() {
  return kRows;
}

}  // namespace atom::cpu
