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
#include "kernels/cuda/fused/fused.h"
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
  // Of the ActivationBlocks: computing these takes divisions and a loop.
  int tokens;
  int groups;
  int units;
  int token_stride;
  bool summed;
  int k;
  int k_normal;
  float clip;
  float low;
  float high;
  float inverse_high;  ///< 1 / high
  float share;         ///< 1 / the largest multiplier of a group
  /// INT4 activations, whose groups have multipliers.
  bool four;
  int8_t* values;
  float* scales;

  /// `out` in the form `blocks`.
  RowQuantize(const ConstMatrix& matrix, const float* norm_weight, float norm_eps, const int32_t* order,
              const QuantizedOutput& out)
      : x(matrix.data),
        stride(matrix.stride),
        weight(norm_weight),
        eps(norm_eps),
        permutation(order),
        k(static_cast<int>(out.spec.layout.k)),
        k_normal(static_cast<int>(out.spec.layout.k_normal())),
        clip(out.spec.clip),
        four(out.spec.bits == 4),
        values(out.values),
        scales(out.scales) {
    const ActivationBlocks blocks{matrix.rows, out.spec.layout.groups(), out.spec.layout.n_outlier};
    tokens = static_cast<int>(blocks.tokens);
    groups = static_cast<int>(blocks.groups);
    units = static_cast<int>(blocks.blocks());
    token_stride = static_cast<int>(blocks.stride());
    summed = blocks.summed();
    low = four ? -8.0f : -127.0f;
    high = four ? 7.0f : 127.0f;
    inverse_high = 1.0f / high;
    share = 1.0f / static_cast<float>(integer_scales::most_of_activations(out.spec.bits));
  }
};

/// A lane's four channels, quantized, times `multiplier`, of INT4 values at most 16, of INT8 ones 1: integers
/// of a byte each. The product of a rounded one with the multiplier is found in the low bits of a sum of
/// the same size as kRound; both are exact.
__device__ inline uint32_t quantize4(const Four& y, float inverse, float multiplier, float low, float high) {
  const float offset = fmaf(-kRound, multiplier, kRound);
  const auto bits = [=](float x) {
    return __float_as_uint(fmaf(fminf(fmaxf(x * inverse, low), high) + kRound, multiplier, offset));
  };
  return low_bytes(bits(y.v[0]), bits(y.v[1]), bits(y.v[2]), bits(y.v[3]));
}

/// The warp's number, as one that the compiler knows to be the same in all lanes.
__device__ inline int warp_index() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
}

/// Largest of the warp's values, which are not negative: their bits are ordered as they are.
__device__ inline float warp_max_magnitude(float x) {
  return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(x)));
}

__device__ inline float max_magnitude(const Four& y) {
  return fmaxf(fmaxf(fmaxf(fabsf(y.v[0]), fabsf(y.v[1])), fmaxf(fabsf(y.v[2]), fabsf(y.v[3]))), 0.0f);
}

/// Bytes from a token's block to its next one.
__device__ inline int64_t block_bytes(const RowQuantize& a) {
  return int64_t{a.token_stride} * kUnitChannels;
}
/// Where a lane's four channels of a token's unit lie in the values.
__device__ inline int8_t* place_of(const RowQuantize& a, int token, int unit, int lane) {
  return a.values + unit * block_bytes(a) + int64_t{token} * kUnitChannels + ((lane / 4) ^ token % 8) * 16 +
         lane % 4 * 4;
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

/// The first of a lane's four channels of a unit, in the layout's order, and where the unit's channels end.
struct Channels {
  int start;
  int end;
};
__device__ inline Channels channels_of(const RowQuantize& a, int unit, int lane) {
  return unit < a.groups ? Channels{unit * 128 + 4 * lane, a.k_normal}
                         : Channels{a.k_normal + (unit - a.groups) * 128 + 4 * lane, a.k};
}

/// A token's unit and the scale of its outliers; or what some of its channels ask for, the largest of which
/// is the token's.
struct alignas(8) TokenScale {
  float unit;
  float outlier;
};

/// numerics::symmetric_scale() of a unit, to the bit (a test compares all magnitudes): the quotient is its
/// product with the reciprocal, corrected once by the remainder (Markstein 1990, see silu.cu), and bounded
/// before, where it is far beyond fp16. It does not shrink as the largest magnitude grows: that of several
/// units together is the largest of theirs.
__device__ inline float scale_of(const RowQuantize& a, bool normal, float largest) {
  const float clip = normal ? a.clip : 1.0f, divisor = normal ? a.high : 127.0f;
  const float inverse = normal ? a.inverse_high : 1.0f / 127.0f;
  const float x = fminf(clip * largest, 0x1p24f), quotient = x * inverse;
  // The minimum is finite_half()'s own, but of a number that is known not to be NaN: one instruction.
  return numerics::finite_half(
      fminf(fmaf(fmaf(-divisor, quotient, x), inverse, quotient), numerics::kHalfMax));
}

/// What a unit's scale asks for: integer_scales::activation_unit() is a maximum.
__device__ inline TokenScale asked_by(const RowQuantize& a, bool normal, float scale) {
  return {scale * (normal ? a.share : 1.0f / integer_scales::kMostOfOutlierActivations),
          normal ? 0.0f : scale};
}

__device__ inline TokenScale warp_largest(const TokenScale& asked) {
  return {warp_max_magnitude(asked.unit), warp_max_magnitude(asked.outlier)};
}

/// numerics::inverse_scale() of a token's unit or a multiple of it, to the bit: 0, or neither x nor 1 / x is
/// near the ends of the range.
__device__ inline float inverse_of(float x) {
  const float reciprocal = refined_reciprocal(x);
  return x > 0.0f ? reciprocal : 0.0f;
}

/// How a unit is quantized.
struct UnitFactors {
  float inverse;
  float multiplier;
};
__device__ inline UnitFactors factors_of(const RowQuantize& a, bool normal, float scale,
                                         const TokenScale& token) {
  const float inverse = inverse_of(token.unit);
  // Rounded as numerics::quantize() does.
  const float of_group =
      a.four ? fminf(fmaxf(scale * inverse, 1.0f), integer_scales::kMostOfGroup) + kRound - kRound : 1.0f;
  const float of_outliers =
      integer_scales::outlier_multiplier(token.outlier, inverse, integer_scales::kMostOfOutlierActivations);
  return {inverse_of((normal ? of_group : of_outliers) * token.unit), normal ? of_group : 1.0f};
}

/// By one thread a token.
__device__ inline void store_token_scale(const RowQuantize& a, int token, const TokenScale& scale) {
  a.scales[token] = scale.unit;
  a.scales[a.token_stride + token] = integer_scales::outlier_multiplier(
      scale.outlier, inverse_of(scale.unit), integer_scales::kMostOfOutlierActivations);
}

/// A part of a token's sum: 0 first, then warps add to it, a barrier later.
__device__ inline int* sum_part(const RowQuantize& a, int token, int part) {
  return reinterpret_cast<int*>(a.scales) + (2 + part) * a.token_stride + token;
}
__device__ inline int add_bytes(uint32_t four, int sum) {
  return __dp4a(static_cast<int>(four), 0x01010101, sum);
}

/// What the quantizing warps of a block tell each other, of kTokens tokens.
template <int kTokens>
using Shares = TokenScale[32][kTokens];

/// Stores a warp's units of a token, the lane's channels of which are y. kGroups: all of them are groups.
template <bool kGroups, int kUnits>
__device__ __forceinline__ void store_units(const RowQuantize& a, int token, int first,
                                            const Four (&y)[kUnits], const UnitFactors& factors,
                                            int from_lane) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int8_t* to = place_of(a, token, first, lane);
  int sum = 0;
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const float inverse = __shfl_sync(~0u, factors.inverse, from_lane + j);
    const float multiplier = __shfl_sync(~0u, factors.multiplier, from_lane + j);
    if (kGroups || first + j < a.units) {
      const bool normal = kGroups || first + j < a.groups;
      const uint32_t q =
          quantize4(y[j], inverse, multiplier, normal ? a.low : -127.0f, normal ? a.high : 127.0f);
      *reinterpret_cast<uint32_t*>(to) = q;
      if (normal) sum = add_bytes(q, sum);
    }
    to += block_bytes(a);
  }
  if (a.summed) add_of_warp(sum_part(a, token, 0), sum);
}

/// Quantizes and stores a warp's units first, first + 1, ... of the tokens token, token + 1, ... below `end`;
/// y[t][j] are the lane's channels of the j-th, padding being zero. All `warps` quantizing warps of the block
/// take part, which are its first ones. `shares` may be written again after the next call's barrier.
template <int kTokens, int kUnits>
__device__ void quantize_units(const RowQuantize& a, int token, int end, int first,
                               const Four (&y)[kTokens][kUnits], Shares<kTokens>& shares, int warps) {
  // A lane's share of the divisions.
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = warp_index();
  const int my_token = lane / kUnits % kTokens;
  const bool my_normal = opaque(first) + lane % kUnits < a.groups;
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
  if (warp == 0 && a.summed && lane < kTokens * ActivationBlocks::kSumParts && token + lane % kTokens < end)
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
  const bool all_groups = first + kUnits <= a.groups;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (t > 0 && token + t >= end) return;
    // A form of its own takes instructions, and code, of which few tokens would use each only once.
    if (kTokens > 1 && all_groups) {
      store_units<true>(a, token + t, first, y[t], mine, t * kUnits);
    } else {
      store_units<false>(a, token + t, first, y[t], mine, t * kUnits);
    }
  }
}

/// The units of a warp, from `first` on: what a lane keeps of its four channels of each.
template <class In, bool kNorm, int kUnits>
struct WarpUnits {
  /// A channel's place in a row in bytes, two of them a word.
  uint32_t places[kUnits][2];
  Four weight[kNorm ? kUnits : 1];
  /// Bit j: the lane has channels of unit j.
  uint32_t real = 0;
  bool all_real;

  __device__ WarpUnits(const RowQuantize& a, int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = first + j;
      const Channels channels = channels_of(a, unit, lane);
      const bool mine = unit < a.units && channels.start < channels.end;
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
