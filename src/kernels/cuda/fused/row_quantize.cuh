#pragma once

// (RMSNorm +) gather + quantize, a token at a time: x [tokens, stride] f32, f16 or bf16 -> ActivationBlocks
// (groups of 128, INT8 outliers; kernels/cuda/layout.h).
// Persistent blocks; a token's row comes by 16-byte cp.async into one of two buffers, the next token's while
// this one is computed. One warp walks the 16 chains of the sum of squares out of shared memory (the
// contract's order: hidden/16 dependent fma, which is what a token costs at least), all write the normed row
// to shared memory, then a warp gathers a unit of 128 channels, four a lane, finds its scale by shuffles and
// stores four bytes a lane: 128 consecutive bytes of a block. The outliers are one unit of n_outlier
// channels. Source: Atom, section 4.3; docs/numerics.md.

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
  int8_t* values;
  float* scales;
};

/// Bytes of shared memory: two rows as they come, and the normed one.
inline size_t row_quantize_shared(int k, size_t element, bool norm) {
  const size_t row = (static_cast<size_t>(k) * element + 15) / 16 * 16;
  return 2 * row + (norm ? static_cast<size_t>(k) * sizeof(float) : 0);
}

__device__ inline void copy16(void* shared, const void* global) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

/// Scale of a unit whose largest magnitude is `max_abs`, quantization of a lane's four channels.
__device__ inline uint32_t quantize4(const Four& y, float inverse, float low, float high) {
  return low_bytes(quantize_bits(y.v[0], inverse, low, high), quantize_bits(y.v[1], inverse, low, high),
                   quantize_bits(y.v[2], inverse, low, high), quantize_bits(y.v[3], inverse, low, high));
}

__device__ inline float max_magnitude(const Four& y) {
  return fmaxf(fmaxf(fmaxf(fabsf(y.v[0]), fabsf(y.v[1])), fmaxf(fabsf(y.v[2]), fabsf(y.v[3]))), 0.0f);
}

/// Stores a lane's four channels of a block.
__device__ inline void store_block(const RowQuantize& a, int64_t token, int64_t block, int lane, uint32_t q) {
  *reinterpret_cast<uint32_t*>(a.values + a.blocks.value(token, block, 4 * lane)) = q;
}

template <class In, bool kNorm, int kUnits>
__global__ void __launch_bounds__(32 * max_warps(kUnits), kUnits == 4 ? 2 : 1)
    row_quantize_kernel(const RowQuantize a) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float shared_factor;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int row_bytes = (a.k * static_cast<int>(sizeof(In)) + 15) / 16 * 16;
  const auto buffer = [&](int i) { return reinterpret_cast<In*>(shared + i * row_bytes); };
  auto* normed = reinterpret_cast<float*>(shared + 2 * row_bytes);
  const int groups = static_cast<int>(a.blocks.groups);
  const int n_outlier = static_cast<int>(a.blocks.n_outlier);
  const int units = groups + (n_outlier > 0 ? 1 : 0);
  launch_dependents();

  // A lane's channels, as 16-bit indices; what lies beyond a unit's end is marked.
  constexpr uint32_t kNone = 0xFFFFu;
  const auto first_channel = [&](int unit) { return unit * 128 + 4 * lane; };
  const auto end_channel = [&](int unit) { return unit < groups ? a.k_normal : a.k; };
  const auto start_of = [&](int unit) { return unit < groups ? first_channel(unit) : a.k_normal + 4 * lane; };
  uint32_t index[kUnits][2];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = warp + j * warps;
    const int start = start_of(unit);
    index[j][0] = index[j][1] = kNone;
    if (unit < units && start < end_channel(unit)) {
      int4 p = make_int4(start, start + 1, start + 2, start + 3);
      if (a.permutation != nullptr) p = *reinterpret_cast<const int4*>(a.permutation + start);
      index[j][0] = static_cast<uint32_t>(p.x) | static_cast<uint32_t>(p.y) << 16;
      index[j][1] = static_cast<uint32_t>(p.z) | static_cast<uint32_t>(p.w) << 16;
    }
  }
  Four weight[kUnits];
  if constexpr (kNorm && kUnits <= 2) {
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int channel = first_channel(warp + j * warps);
      if (channel < a.k) weight[j] = load4(a.weight + channel);
    }
  }

  const auto fetch = [&](int64_t token, int into) {
    if (token < a.blocks.tokens) {
      const auto* from =
          reinterpret_cast<const unsigned char*>(static_cast<const In*>(a.x) + token * a.stride);
      unsigned char* to = shared + into * row_bytes;
      for (int byte = 16 * static_cast<int>(threadIdx.x); byte < row_bytes;
           byte += 16 * static_cast<int>(blockDim.x)) {
        copy16(to + byte, from + byte);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  wait_for_dependencies();
  fetch(blockIdx.x, 0);
  int current = 0;
  for (int64_t token = blockIdx.x; token < a.blocks.tokens; token += gridDim.x, current ^= 1) {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    fetch(token + gridDim.x, current ^ 1);
    const In* x = buffer(current);
    if constexpr (kNorm) {
      if (warp == 0) {
        const float sum = sum_of_squares(x, a.k);
        if (lane == 0) shared_factor = numerics::inverse_rms(sum, a.k, a.eps);
      }
      __syncthreads();
      const float factor = shared_factor;
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        const int channel = first_channel(warp + j * warps);
        if (channel >= a.k) continue;
        Four y = load4(x + channel);
        const Four w = kUnits <= 2 ? weight[j] : load4(a.weight + channel);
        for (int i = 0; i < 4; ++i) y.v[i] = (y.v[i] * factor) * w.v[i];
        store4(normed + channel, y);
      }
      __syncthreads();
    }
    const auto value = [&](uint32_t channel) {
      if constexpr (kNorm) {
        return normed[channel];
      } else {
        return widen(x[channel]);
      }
    };
    const auto gather = [&](uint32_t low, uint32_t high) {
      if (low == kNone) return Four{};
      return Four{{value(low & 0xFFFFu), value(low >> 16), value(high & 0xFFFFu), value(high >> 16)}};
    };
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int unit = warp + j * warps;
      if (unit >= units) continue;
      const Four y = gather(index[j][0], index[j][1]);
      if (unit < groups) {
        const float scale = numerics::symmetric_scale(warp_max(max_magnitude(y)), a.clip, a.high);
        store_block(a, token, unit, lane, quantize4(y, numerics::inverse_scale(scale), a.low, a.high));
        if (lane == 0) a.scales[a.blocks.scale(token, unit)] = scale;
        continue;
      }
      // The outliers: one scale over all of their blocks.
      const auto block = [&](int b) {
        const int start = a.k_normal + 128 * b + 4 * lane;
        if (b == 0) return y;
        if (start >= a.k) return Four{};
        int4 p = make_int4(start, start + 1, start + 2, start + 3);
        if (a.permutation != nullptr) p = *reinterpret_cast<const int4*>(a.permutation + start);
        return Four{{value(p.x), value(p.y), value(p.z), value(p.w)}};
      };
      const int blocks = (n_outlier + 127) / 128;
      float largest = max_magnitude(y);
      for (int b = 1; b < blocks; ++b) largest = fmaxf(largest, max_magnitude(block(b)));
      const float scale = numerics::symmetric_scale(warp_max(largest), 1.0f, 127.0f);
      const float inverse = numerics::inverse_scale(scale);
      for (int b = 0; b < blocks; ++b) {
        store_block(a, token, groups + b, lane, quantize4(block(b), inverse, -127.0f, 127.0f));
      }
      if (lane == 0) a.scales[a.blocks.scale(token, groups)] = scale;
    }
    if (n_outlier == 0 && threadIdx.x == 0) a.scales[a.blocks.scale(token, groups)] = 0.0f;
  }
}

}  // namespace atom::cuda::fused
