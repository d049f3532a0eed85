#pragma once

// W4A16 baseline for up to 64 tokens a tile: y[m, n] = x[m, k] w[n, k]^T, x f16, w INT4 with an fp16 scale a
// row and group of 128 channels, sums f32; computed as y^T = w x^T by wgmma, w from registers.
//
// A CTA owns kTiles * 128 rows of w, a warpgroup for 64 of them, and kTokens tokens, and walks the groups of
// its share of k. A stage of its ring is one group: weights by bulk copies, x by tensor copies (zeros beyond
// m and k) into the 128-byte swizzle. The weights' order gives a lane its fragments in two 16-byte loads. A
// nibble q becomes fp16 by bit operations: (q ^ 8) | 0x6400 is 1024 + q + 8 (Kim et al. 2022, "Who Says
// Elephants Can't Run", section 3); the group's scale multiplies the weight, rounded to fp16. CTAs that split
// k form a cluster and add their sums in ascending order through distributed shared memory.

#include <algorithm>
#include <cstdint>
#include <cuda.h>
#include <cuda_fp16.h>

#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/baseline/w4a16/config.h"
#include "kernels/cuda/baseline/w4a16/wgmma_weights.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::baseline::w4a16 {

struct Params {
  const uint8_t* w;
  void* y;
  int64_t y_stride;
  int m, n, k, groups, splits;
  ResultType result;
  bool accumulate;
};

template <int kTokens, int kTiles>
struct Shape {
  static constexpr int kConsumers = kTiles * 256;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kRows = kTiles * kTileRows;
  /// Of x: two halves of a group, [kTokens][128 bytes] each.
  static constexpr int kHalf = kTokens * 128;
  static constexpr int kStage = (2 * kHalf + kTiles * kUnitBytes + 1023) / 1024 * 1024;
  static constexpr int kBlocks = kTiles == 1 ? 2 : 1;
  static constexpr int kStages = std::min(8, (228 / kBlocks - 3) * 1024 / kStage);
  /// Floats from token to token of the partial sums; 4 more than rows, against bank conflicts.
  static constexpr int kPitch = kRows + 4;
  static constexpr int kShared = std::max(kStages * kStage, kTokens* kPitch * 4);
};

/// Copies a box of x, 64 channels of kTokens tokens from (channel, token) on, into the 128-byte swizzle.
__device__ __forceinline__ void tensor_load(void* to, const CUtensorMap& x, int channel, int token,
                                            uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(ptx::shared_address(to)),
      "l"(&x), "r"(channel), "r"(token), "r"(ptx::shared_address(barrier))
      : "memory");
}

/// The lowest nibbles of the two halves of a word, times `scale`.
__device__ __forceinline__ uint32_t dequantize_pair(uint32_t word, __half2 scale) {
  const __half2 bias = __half2half2(__ushort_as_half(0x6408));  // 1032
  const uint32_t bits = (word & 0x000F000Fu) ^ 0x64086408u;
  const __half2 product = __hmul2(__hsub2(reinterpret_cast<const __half2&>(bits), bias), scale);
  return reinterpret_cast<const uint32_t&>(product);
}

/// Fragment of a word: pairs of channels of rows g, g + 8, g, g + 8, times the scales of the two rows.
__device__ __forceinline__ void dequantize(uint32_t word, __half2 scale, __half2 scale8, uint32_t (&out)[4]) {
  const __half2 high_bias = __half2half2(__ushort_as_half(0xD480));  // -72
  const __half2 sixteenth = __half2half2(__ushort_as_half(0x2C00));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    out[2 * i] = dequantize_pair(word, scale);
    const uint32_t high = (word & 0x00F000F0u) ^ 0x64806480u;
    const __half2 q_high = __hfma2(reinterpret_cast<const __half2&>(high), sixteenth, high_bias);
    reinterpret_cast<__half2&>(out[2 * i + 1]) = __hmul2(q_high, scale8);
    word >>= 8;
  }
}

template <class T>
__device__ __forceinline__ void store(T* to, float value, bool accumulate) {
  *to = static_cast<T>(accumulate ? value + static_cast<float>(*to) : value);
}

template <int kTokens, int kTiles>
__global__ void __launch_bounds__(Shape<kTokens, kTiles>::kThreads, Shape<kTokens, kTiles>::kBlocks)
    w4a16_kernel(const Params p, const __grid_constant__ CUtensorMap x_map) {
  using S = Shape<kTokens, kTiles>;
  extern __shared__ __align__(1024) uint8_t smem[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  const int tid = static_cast<int>(threadIdx.x), warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  const int rank = static_cast<int>(blockIdx.x) % p.splits, tile = static_cast<int>(blockIdx.x) / p.splits;
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  const int first = p.groups * rank / p.splits, count = p.groups * (rank + 1) / p.splits - first;
  launch_dependents();
  if (tid == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      ptx::barrier_init(&full[i], 1);
      ptx::barrier_init(&empty[i], S::kConsumers / 32);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();

  float acc[kTokens / 2] = {};
  const int row_in_cta = warp * 16;
  if (warp == S::kConsumers / 32) {
    if (lane == 0) {
      const uint64_t stream = ptx::policy_evict_first();
      // The last CTA may have but one tile.
      const int tiles = min(kTiles, (p.n + kTileRows - 1) / kTileRows - tile * kTiles);
      const auto copy_weights = [&](int i) {
        const int slot = i % S::kStages;
        ptx::barrier_arrive_expect(&full[slot], static_cast<uint32_t>(2 * S::kHalf + tiles * kUnitBytes));
        for (int u = 0; u < tiles; ++u) {
          ptx::bulk_load(smem + slot * S::kStage + 2 * S::kHalf + u * kUnitBytes,
                         p.w + (static_cast<int64_t>(tile * kTiles + u) * p.groups + first + i) * kUnitBytes,
                         kUnitBytes, &full[slot], stream);
        }
      };
      const auto copy_x = [&](int i) {
        const int slot = i % S::kStages, channel = (first + i) * kGroup;
        for (int half = 0; half < 2; ++half) {
          tensor_load(smem + slot * S::kStage + half * S::kHalf, x_map, channel + half * 64, token0,
                      &full[slot]);
        }
      };
      const int head = min(count, S::kStages);
      for (int i = 0; i < head; ++i) copy_weights(i);
      wait_for_dependencies();
      for (int i = 0; i < head; ++i) copy_x(i);
      for (int i = head; i < count; ++i) {
        ptx::barrier_wait(&empty[i % S::kStages], (i / S::kStages - 1) & 1);
        copy_weights(i);
        copy_x(i);
      }
    } else {
      wait_for_dependencies();
    }
  } else {
    wait_for_dependencies();
    int slot = 0;
    uint32_t parity = 0;
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      ptx::barrier_wait(&full[slot], parity);
      const uint8_t* stage = smem + slot * S::kStage;
      const uint8_t* unit = stage + 2 * S::kHalf + row_in_cta / kTileRows * kUnitBytes;
      const int row = row_in_cta % kTileRows;
      const uint4* in = reinterpret_cast<const uint4*>(unit + row * 64) + lane;
      const __half* scales = reinterpret_cast<const __half*>(unit + kValueBytes) + row + g;
      const __half2 scale = __half2half2(scales[0]), scale8 = __half2half2(scales[8]);
      const uint64_t x = wgmma::descriptor(ptx::shared_address(stage));
      uint32_t a[8][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 v = in[half * 32];
        const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int s = 0; s < 4; ++s) dequantize(words[s], scale, scale8, a[half * 4 + s]);
      }
      wgmma::fence();
#pragma unroll
      for (int s = 0; s < 8; ++s) wgmma::multiply(acc, a[s], x + s / 4 * (S::kHalf / 16) + s % 4 * 2);
      wgmma::commit();
      wgmma::wait<0>();
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(&empty[slot]);
      if (++slot == S::kStages) slot = 0, parity ^= 1;
    }
  }

  // All copies have landed and have been read: the ring becomes the place of the sums, [kTokens][kPitch].
  __syncthreads();
  float* sums = reinterpret_cast<float*>(smem);
  if (warp < S::kConsumers / 32) {
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sums[(j * 8 + 2 * t + c % 2) * S::kPitch + row_in_cta + g + c / 2 * 8] = acc[4 * j + c];
      }
    }
  }
  if (p.splits > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }
  // Every rank finishes its share of the tile.
  constexpr int kAll = kTokens * S::kRows;
  const uint32_t base = ptx::shared_address(sums);
  for (int e = kAll * rank / p.splits + tid; e < kAll * (rank + 1) / p.splits; e += S::kThreads) {
    const int token = token0 + e / S::kRows, row = tile * S::kRows + e % S::kRows;
    if (token >= p.m || row >= p.n) continue;
    const uint32_t at = base + (e / S::kRows * S::kPitch + e % S::kRows) * 4;
    float sum = 0;
    for (int other = 0; other < p.splits; ++other) {
      float part;
      asm volatile("ld.shared::cluster.f32 %0, [%1];"
                   : "=f"(part)
                   : "r"(ptx::map_shared(at, static_cast<uint32_t>(other)))
                   : "memory");
      sum += part;
    }
    const int64_t to = token * p.y_stride + row;
    if (p.result == ResultType::f32) {
      store(static_cast<float*>(p.y) + to, sum, p.accumulate);
    } else {
      store(static_cast<__half*>(p.y) + to, sum, p.accumulate);
    }
  }
  // Nobody leaves while others may still read its sums.
  if (p.splits > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace atom::cuda::baseline::w4a16
