#pragma once

// (RMSNorm +) gather + quantize: x [tokens, stride] f32, f16 or bf16 -> ActivationBlocks (groups of 128, INT8
// outliers, integer scales; kernels/cuda/layout.h). What the two kernels share: row_single.cuh, a block a
// token, for few tokens; row_stream.cuh, persistent blocks with a pipeline of tokens, for many.
// A unit is 128 normal channels, or 128 outliers. A warp gathers its units from the token's row in shared
// memory, four channels a lane, whose places and norm weights it keeps in registers; it finds the scales by
// warp reductions, the warps of a token exchange the largest of what their scales ask of the token's unit,
// then each computes the divisions for all its units at once, a lane each, and stores four bytes a lane: 128
// consecutive bytes of a block. Source: Atom, section 4.3; docs/numerics.md.

#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/integer_scales.h"

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
  /// INT4 activations, whose groups have multipliers.
  bool four;
  int8_t* values;
  float* scales;
};

/// A lane's four channels, quantized, times `multiplier`: of INT4 values at most 16, of INT8 ones 1. The
/// products of all four bytes are one multiplication: q + 8 times the multiplier stays within its byte, and
/// the subtraction of 8 times the multiplier is the addition of its complement, whose top bit is set.
__device__ inline uint32_t quantize4(const Four& y, float inverse, uint32_t multiplier, float low,
                                     float high) {
  const auto raised = [=](float x) {
    return __float_as_uint(fminf(fmaxf(x * inverse, low), high) + (12582912.0f + 8.0f));
  };
  const uint32_t product =
      low_bytes(raised(y.v[0]), raised(y.v[1]), raised(y.v[2]), raised(y.v[3])) * multiplier;
  const uint32_t complement = 0x80808080u - 0x08080808u * multiplier;
  return ((product & 0x7F7F7F7Fu) + complement) ^ (~product & 0x80808080u);
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
  return static_cast<int>(a.blocks.blocks());
}

/// The first of a lane's four channels of a unit, in the layout's order, and where the unit's channels end.
struct Channels {
  int start;
  int end;
};
__device__ inline Channels channels_of(const RowQuantize& a, int unit, int lane) {
  const int groups = static_cast<int>(a.blocks.groups);
  return unit < groups ? Channels{unit * 128 + 4 * lane, a.k_normal}
                       : Channels{a.k_normal + (unit - groups) * 128 + 4 * lane, a.k};
}

/// A token's unit and the scale of its outliers; or what some of its channels ask for, the largest of which
/// is the token's.
struct alignas(8) TokenScale {
  float unit;
  float outlier;
};

/// Symmetric scale of a unit. It does not shrink as the largest magnitude grows: that of several units
/// together is the largest of theirs.
__device__ inline float scale_of(const RowQuantize& a, bool normal, float largest) {
  return numerics::symmetric_scale(largest, normal ? a.clip : 1.0f, normal ? a.high : 127.0f);
}

/// What a unit's scale asks for: integer_scales::activation_unit() is a maximum.
__device__ inline TokenScale asked_by(const RowQuantize& a, bool normal, float scale) {
  const float group = normal ? scale : 0.0f, outlier = normal ? 0.0f : scale;
  const float unit =
      a.four ? integer_scales::activation_unit(group, outlier, integer_scales::most_of_activations(4))
             : integer_scales::activation_unit(group, outlier, integer_scales::most_of_activations(8));
  return {unit, outlier};
}

__device__ inline TokenScale warp_largest(const TokenScale& asked) {
  return {warp_max_magnitude(asked.unit), warp_max_magnitude(asked.outlier)};
}

/// How a unit is quantized.
struct UnitFactors {
  float inverse;
  uint32_t multiplier;
};
__device__ inline UnitFactors factors_of(const RowQuantize& a, bool normal, float scale,
                                         const TokenScale& token) {
  const float inverse = numerics::inverse_scale(token.unit);
  const float of_group =
      a.four ? integer_scales::group_multiplier(scale, inverse, integer_scales::kMostOfGroup) : 1.0f;
  const float of_outliers =
      integer_scales::outlier_multiplier(token.outlier, inverse, integer_scales::kMostOfOutlierActivations);
  return {numerics::inverse_scale((normal ? of_group : of_outliers) * token.unit),
          normal ? static_cast<uint32_t>(of_group) : 1u};
}

/// By one thread a token.
__device__ inline void store_token_scale(const RowQuantize& a, int64_t token, const TokenScale& scale) {
  a.scales[token] = scale.unit;
  a.scales[a.token_stride + token] = integer_scales::outlier_multiplier(
      scale.outlier, numerics::inverse_scale(scale.unit), integer_scales::kMostOfOutlierActivations);
}

/// A part of a token's sum: 0 first, then warps add to it, a barrier later.
__device__ inline int* sum_part(const RowQuantize& a, int64_t token, int part) {
  return reinterpret_cast<int*>(a.scales) + (2 + part) * a.token_stride + token;
}
__device__ inline int add_bytes(uint32_t four, int sum) {
  return __dp4a(static_cast<int>(four), 0x01010101, sum);
}

/// What the quantizing warps of a block tell each other, of kTokens tokens.
template <int kTokens>
using Shares = TokenScale[32][kTokens];

/// Quantizes and stores a warp's units first, first + step, ... of the tokens token, token + 1, ... below
/// `end`; y[t][j] are the lane's channels of the j-th, padding being zero. All `warps` quantizing warps of
/// the block take part, which are its first ones. `shares` may be written again after the next call's
/// barrier.
template <int kTokens, int kUnits>
__device__ void quantize_units(const RowQuantize& a, int64_t token, int64_t end, int first, int step,
                               const Four (&y)[kTokens][kUnits], Shares<kTokens>& shares, int warps) {
  // A lane's share of the divisions.
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int my_token = lane / kUnits % kTokens;
  const int groups = static_cast<int>(a.blocks.groups), units = unit_count(a);
  const bool my_normal = first + lane % kUnits * step < groups;
  float my_largest = 0.0f;
#pragma unroll
  for (int i = 0; i < kTokens * kUnits; ++i) {
    const float of_unit = warp_max_magnitude(max_magnitude(y[i / kUnits][i % kUnits]));
    my_largest = lane % (kTokens * kUnits) == i ? of_unit : my_largest;
  }
  const float my_scale = scale_of(a, my_normal, my_largest);
  const TokenScale asked = asked_by(a, my_normal, my_scale);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const bool mine = kTokens == 1 || my_token == t;
    const TokenScale of_warp = warp_largest({mine ? asked.unit : 0.0f, mine ? asked.outlier : 0.0f});
    if (lane == 0) shares[warp][t] = of_warp;
  }
  static_assert(kTokens * ActivationBlocks::kSumParts <= 32);
  const bool summed = a.blocks.summed();
  if (summed && warp == 0 && lane < kTokens * ActivationBlocks::kSumParts && token + lane % kTokens < end)
    *sum_part(a, token + lane % kTokens, lane / kTokens) = 0;
  ptx::named_barrier(1, 32 * warps);
  TokenScale my_scale_of_token{};
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const TokenScale all = warp_largest(lane < warps ? shares[lane][t] : TokenScale{});
    if (kTokens == 1 || my_token == t) my_scale_of_token = all;
  }
  const UnitFactors mine = factors_of(a, my_normal, my_scale, my_scale_of_token);
  if (warp == 0 && lane % kUnits == 0 && lane < kTokens * kUnits && token + my_token < end) {
    store_token_scale(a, token + my_token, my_scale_of_token);
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (t > 0 && token + t >= end) return;
    int8_t* to = block_of(a, token + t, lane) + first * block_bytes(a);
    int sum = 0;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = opaque(first) + j * step;
      const float inverse = __shfl_sync(~0u, mine.inverse, t * kUnits + j);
      const uint32_t multiplier = __shfl_sync(~0u, mine.multiplier, t * kUnits + j);
      if (unit < units) {
        const bool normal = unit < groups;
        const uint32_t q =
            quantize4(y[t][j], inverse, multiplier, normal ? a.low : -127.0f, normal ? a.high : 127.0f);
        *reinterpret_cast<uint32_t*>(to) = q;
        if (normal) sum = add_bytes(q, sum);
      }
      to += step * block_bytes(a);
    }
    if (summed) add_of_warp(sum_part(a, token + t, 0), sum);
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
    const int units = unit_count(a);
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = first + j * step;
      const Channels channels = channels_of(a, unit, lane);
      const bool mine = unit < units && channels.start < channels.end;
      real |= mine ? 1u << j : 0u;
      const int4 c = channels_at(a, mine ? channels.start : 0);
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
