#pragma once

// (RMSNorm +) gather + quantize: x [tokens, stride] f32, f16 or bf16 -> ActivationBlocks (groups of 128, INT8
// outliers; kernels/cuda/layout.h). What the two kernels share: row_single.cuh, a block a token, for few
// tokens; row_stream.cuh, persistent blocks with a pipeline of tokens, for many.
// A unit is 128 normal channels, or all the outliers. A warp gathers its units from the token's row in shared
// memory, four channels a lane, whose places and norm weights it keeps in registers; it finds the scales by
// warp reductions, computes the divisions for all its units at once, a lane each, and stores four bytes a
// lane: 128 consecutive bytes of a block. Source: Atom, section 4.3; docs/numerics.md.

#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/device.cuh"
#include "kernels/cuda/layout.h"

namespace atom::cuda::fused {

struct RowQuantize {
  const void* x;
  int64_t stride;
  const float* weight;
  float eps;
  const int32_t* permutation;
  ActivationBlocks blocks;
  /// Of `blocks`: computing it takes a loop.
  int64_t token_stride;
  int k;
  int k_normal;
  float clip;
  float low;
  float high;
  int8_t* values;
  float* scales;
};

/// A lane's four channels, quantized.
__device__ inline uint32_t quantize4(const Four& y, float inverse, float low, float high) {
  return low_bytes(quantize_bits(y.v[0], inverse, low, high), quantize_bits(y.v[1], inverse, low, high),
                   quantize_bits(y.v[2], inverse, low, high), quantize_bits(y.v[3], inverse, low, high));
}

/// Largest of the warp's values, which are not negative: their bits are ordered as they are.
__device__ inline float warp_max_magnitude(float x) {
  return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(x)));
}

__device__ inline float max_magnitude(const Four& y) {
  return fmaxf(fmaxf(fmaxf(fabsf(y.v[0]), fabsf(y.v[1])), fmaxf(fabsf(y.v[2]), fabsf(y.v[3]))), 0.0f);
}

/// Where a lane's four channels of block 0 of a token lie in the values; block b is b * block_bytes(a)
/// behind.
__device__ inline int8_t* block_of(const RowQuantize& a, int64_t token, int lane) {
  return a.values + token * kUnitChannels + ((lane / 4) ^ static_cast<int>(token % 8)) * 16 + lane % 4 * 4;
}
__device__ inline int64_t block_bytes(const RowQuantize& a) {
  return a.token_stride * kUnitChannels;
}

/// `x`, so that what is computed from it stays in a loop over tokens: kept in registers, it would not fit.
template <class T>
__device__ T opaque(T x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// Bytes of a row that are copied: whole pieces of 16.
template <class In>
__host__ __device__ constexpr int copied_bytes(int k) {
  return (k * static_cast<int>(sizeof(In)) + 15) / 16 * 16;
}

__device__ inline int unit_count(const RowQuantize& a) {
  return static_cast<int>(a.blocks.groups) + (a.blocks.n_outlier > 0 ? 1 : 0);
}

/// Quantizes and stores a warp's units first, first + step, ...; y[j] are the lane's channels of the j-th,
/// padding being zero. `outliers`, called for a block of more than 128 outliers, gives its channels; kMore:
/// there may be such blocks.
template <bool kMore, int kUnits, class Outliers>
__device__ void quantize_units(const RowQuantize& a, int64_t token, int first, int step,
                               const Four (&y)[kUnits], const Outliers& outliers) {
  const int lane = static_cast<int>(threadIdx.x) % 32, mine = lane % kUnits;
  const int groups = static_cast<int>(a.blocks.groups), units = unit_count(a);
  const int more = kMore ? static_cast<int>(a.blocks.outlier_blocks()) : 1;
  float my_largest = 0.0f;
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    float largest = max_magnitude(y[j]);
    if (kMore && first + j * step == groups) {
      for (int b = 1; b < more; ++b) largest = fmaxf(largest, max_magnitude(outliers(b)));
    }
    const float of_unit = warp_max_magnitude(largest);
    my_largest = mine == j ? of_unit : my_largest;
  }
  // The lane's share of the divisions.
  const int my_unit = first + mine * step;
  const bool my_normal = my_unit < groups;
  const float my_scale =
      numerics::symmetric_scale(my_largest, my_normal ? a.clip : 1.0f, my_normal ? a.high : 127.0f);
  const float my_inverse = numerics::inverse_scale(my_scale);
  if (lane < kUnits && my_unit < units) a.scales[my_unit * a.token_stride + token] = my_scale;
  if (a.blocks.n_outlier == 0 && first == 0 && lane == 0) a.scales[groups * a.token_stride + token] = 0.0f;
  int8_t* to = block_of(a, token, lane) + first * block_bytes(a);
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = opaque(first) + j * step;
    const float inverse = __shfl_sync(~0u, my_inverse, j);
    if (unit < units) {
      const bool normal = unit < groups;
      *reinterpret_cast<uint32_t*>(to) =
          quantize4(y[j], inverse, normal ? a.low : -127.0f, normal ? a.high : 127.0f);
      for (int b = 1; kMore && !normal && b < more; ++b) {
        *reinterpret_cast<uint32_t*>(to + b * block_bytes(a)) =
            quantize4(outliers(b), inverse, -127.0f, 127.0f);
      }
    }
    to += step * block_bytes(a);
  }
}

/// The units of a warp, `first`, first + step, ...: what a lane keeps of its four channels of each.
template <class In, bool kNorm, int kUnits>
struct WarpUnits {
  /// A channel's place in a row in bytes, two of them a word.
  uint32_t places[kUnits][2];
  Four weight[kNorm ? kUnits : 1];
  /// Bit j: the lane has channels of unit j.
  uint32_t real = 0;
  bool all_real;
  int first, step;

  __device__ WarpUnits(const RowQuantize& a, int first_unit, int unit_step)
      : first(first_unit), step(unit_step) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int groups = static_cast<int>(a.blocks.groups), units = unit_count(a);
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = first + j * step;
      const int start = (unit < groups ? unit * 128 : a.k_normal) + 4 * lane;
      const bool mine = unit < units && start < (unit < groups ? a.k_normal : a.k);
      real |= mine ? 1u << j : 0u;
      const int4 c = channels_at(a, mine ? start : 0);
      places[j][0] = place(c.x) | place(c.y) << 16;
      places[j][1] = place(c.z) | place(c.w) << 16;
      if constexpr (kNorm) weight[j] = {{a.weight[c.x], a.weight[c.y], a.weight[c.z], a.weight[c.w]}};
    }
    all_real = __all_sync(~0u, real == (1u << kUnits) - 1);
  }

  __device__ static uint32_t place(int channel) {
    return static_cast<uint32_t>(channel) * static_cast<uint32_t>(sizeof(In));
  }
  __device__ static int4 channels_at(const RowQuantize& a, int start) {
    if (a.permutation != nullptr) return *reinterpret_cast<const int4*>(a.permutation + start);
    return make_int4(start, start + 1, start + 2, start + 3);
  }

  /// The lane's channels of the row, as they are.
  __device__ void gather(const unsigned char* row, Four (&y)[kUnits]) const {
    const auto at = [row](uint32_t byte) { return widen(*reinterpret_cast<const In*>(row + byte)); };
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const uint32_t low = opaque(places[j][0]), high = opaque(places[j][1]);
      y[j] = {{at(low & 0xFFFFu), at(low >> 16), at(high & 0xFFFFu), at(high >> 16)}};
    }
  }

  /// What `gather` gave, normalized where kNorm; what is padding is zero, whatever the factor is.
  __device__ void normalize(Four (&y)[kUnits], float factor) const {
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
#pragma unroll
      for (int i = 0; kNorm && i < 4; ++i) y[j].v[i] = (y[j].v[i] * factor) * weight[j].v[i];
    }
    if (all_real) return;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      if ((real >> j & 1) == 0) y[j] = Four{};
    }
  }
};

}  // namespace atom::cuda::fused
