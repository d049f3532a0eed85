#pragma once

// (RMSNorm +) gather + quantize: x [tokens, stride] f32, f16 or bf16 -> ActivationBlocks (groups of 128, INT8
// outliers; kernels/cuda/layout.h).
// Persistent blocks; a tile of 1 to 8 tokens' rows comes to shared memory by 16-byte cp.async. A warp a token
// walks the 16 chains of its sum of squares (the contract's order: hidden/16 dependent fma; tokens of a tile
// share that wait). Then a warp gathers units of 128 channels, four a lane; a lane keeps the channels'
// numbers and norm weights in registers for all tokens. It finds the scales by warp reductions, computes the
// divisions for all its units at once, a lane each, and stores four bytes a lane: 128 consecutive bytes of a
// block. The outliers are one unit of n_outlier channels. Blocks of a multiprocessor hide each other's loads.
// Source: Atom, section 4.3; docs/numerics.md.

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
  int k;
  int k_normal;
  float clip;
  float low;
  float high;
  int tile_tokens;
  int8_t* values;
  float* scales;
};

__device__ inline void copy16(void* shared, const void* global) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

/// Scale of a unit whose largest magnitude is `max_abs`, quantization of a lane's four channels.
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

/// Stores a lane's four channels of a block.
__device__ inline void store_block(const RowQuantize& a, int64_t token, int64_t block, int lane, uint32_t q) {
  *reinterpret_cast<uint32_t*>(a.values + a.blocks.value(token, block, 4 * lane)) = q;
}

template <class In, bool kNorm, int kUnits>
__global__ void __launch_bounds__(32 * max_warps(kUnits)) row_quantize_kernel(const RowQuantize a) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float factors[kMaxTileTokens];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int row_bytes = (a.k * static_cast<int>(sizeof(In)) + 15) / 16 * 16;
  const int groups = static_cast<int>(a.blocks.groups);
  const int n_outlier = static_cast<int>(a.blocks.n_outlier);
  const int units = groups + (n_outlier > 0 ? 1 : 0);
  launch_dependents();

  // A lane's channels as 16-bit numbers, and their weights; what lies beyond a unit's end is marked.
  constexpr uint32_t kNone = 0xFFFFu;
  struct Channels {
    uint32_t low, high;
  };
  const auto channels_at = [&](int start, int end) {
    if (start >= end) return Channels{kNone, kNone};
    int4 p = make_int4(start, start + 1, start + 2, start + 3);
    if (a.permutation != nullptr) p = *reinterpret_cast<const int4*>(a.permutation + start);
    return Channels{static_cast<uint32_t>(p.x) | static_cast<uint32_t>(p.y) << 16,
                    static_cast<uint32_t>(p.z) | static_cast<uint32_t>(p.w) << 16};
  };
  const auto pick = [&](const auto* row, const Channels& c) {
    if (c.low == kNone) return Four{};
    return Four{{widen(row[c.low & 0xFFFFu]), widen(row[c.low >> 16]), widen(row[c.high & 0xFFFFu]),
                 widen(row[c.high >> 16])}};
  };
  Channels channels[kUnits];
  Four weight[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = warp + j * warps;
    const int start = (unit < groups ? unit * 128 : a.k_normal) + 4 * lane;
    channels[j] = channels_at(start, unit < groups ? a.k_normal : unit < units ? a.k : 0);
    if constexpr (kNorm) weight[j] = pick(a.weight, channels[j]);
  }
  // The lane's share of the divisions: unit `mine` of the warp's.
  const int mine = lane % kUnits;
  const int my_unit = warp + mine * warps;
  const float my_clip = my_unit < groups ? a.clip : 1.0f;
  const float my_high = my_unit < groups ? a.high : 127.0f;
  const auto fetch = [&](int64_t token, unsigned char* to) {
    const auto* from = reinterpret_cast<const unsigned char*>(static_cast<const In*>(a.x) + token * a.stride);
    const int step = 16 * static_cast<int>(blockDim.x);
    for (int byte = 16 * static_cast<int>(threadIdx.x); byte < row_bytes; byte += step) {
      copy16(to + byte, from + byte);
    }
  };
  // Normalizes, (where kNorm) and quantizes a token's row.
  const auto quantize_row = [&](int64_t token, const In* x, float factor) {
    // Padding stays zero whatever the factor is.
    const auto normed = [&](const Channels& c, const Four& w) {
      Four y = pick(x, c);
      if (c.low == kNone) return y;
      for (int i = 0; kNorm && i < 4; ++i) y.v[i] = (y.v[i] * factor) * w.v[i];
      return y;
    };
    // Outliers beyond the first 128.
    const auto more_outliers = [&](int block) {
      const Channels c = channels_at(a.k_normal + 128 * block + 4 * lane, a.k);
      return normed(c, kNorm ? pick(a.weight, c) : Four{});
    };
    Four y[kUnits];
    float largest[kUnits];
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      y[j] = normed(channels[j], weight[j]);
      largest[j] = max_magnitude(y[j]);
      if (n_outlier > 128 && warp + j * warps == groups) {
        for (int b = 1; b < static_cast<int>(a.blocks.outlier_blocks()); ++b) {
          largest[j] = fmaxf(largest[j], max_magnitude(more_outliers(b)));
        }
      }
    }
    float my_largest = 0.0f;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const float of_unit = warp_max_magnitude(largest[j]);
      my_largest = mine == j ? of_unit : my_largest;
    }
    const float my_scale = numerics::symmetric_scale(my_largest, my_clip, my_high);
    const float my_inverse = numerics::inverse_scale(my_scale);
    if (lane < kUnits && my_unit < units) a.scales[a.blocks.scale(token, my_unit)] = my_scale;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = warp + j * warps;
      const float inverse = __shfl_sync(~0u, my_inverse, j);
      if (unit < groups) {
        store_block(a, token, unit, lane, quantize4(y[j], inverse, a.low, a.high));
      } else if (unit < units) {
        store_block(a, token, groups, lane, quantize4(y[j], inverse, -127.0f, 127.0f));
        for (int b = 1; b < static_cast<int>(a.blocks.outlier_blocks()); ++b) {
          store_block(a, token, groups + b, lane, quantize4(more_outliers(b), inverse, -127.0f, 127.0f));
        }
      }
    }
    if (n_outlier == 0 && threadIdx.x == 0) a.scales[a.blocks.scale(token, groups)] = 0.0f;
  };

  wait_for_dependencies();
  const int64_t step = int64_t{gridDim.x} * a.tile_tokens;
  for (int64_t first = int64_t{blockIdx.x} * a.tile_tokens; first < a.blocks.tokens; first += step) {
    const int count = static_cast<int>(min(int64_t{a.tile_tokens}, a.blocks.tokens - first));
    __syncthreads();
    for (int i = 0; i < count; ++i) fetch(first + i, shared + i * row_bytes);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    const auto row = [&](int i) { return reinterpret_cast<const In*>(shared + i * row_bytes); };
    if constexpr (kNorm) {
      for (int i = warp; i < count; i += warps) {
        const float sum = sum_of_squares(row(i), a.k);
        if (lane == 0) factors[i] = numerics::inverse_rms(sum, a.k, a.eps);
      }
      __syncthreads();
    }
#pragma unroll 1
    for (int i = 0; i < count; ++i) quantize_row(first + i, row(i), kNorm ? factors[i] : 1.0f);
  }
}

}  // namespace atom::cuda::fused
