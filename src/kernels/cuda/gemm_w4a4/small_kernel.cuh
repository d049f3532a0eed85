#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/wgmma.cuh"

/// W4A4 / W4A8 GEMM for 17 to 256 tokens: Y[tokens, n] = X · W^T, by wgmma as Y^T = W · X^T.
///
/// A CTA has a tile of 128 rows by kTokens tokens and a range of units of K. One warp keeps a ring of kStages
/// units in flight (W, its scales, X and its scales; bulk copies that complete on mbarriers). Two warpgroups
/// of 64 rows each take W from the ring to registers, unpack it to 8-bit fragments (a nibble as 16 q, the
/// 1/16 folded into the scale), multiply by wgmma with X from shared memory, and add the scaled sums of a
/// unit to FP32 accumulators. Where tiles alone would not fill the chip, the CTAs of a cluster split K evenly
/// and add their sums through distributed shared memory in ascending order. One CTA a tile: the contract's
/// order exactly.
namespace atom::cuda {

struct SmallArguments {
  const uint8_t* weight;
  const int8_t* x;
  const float* sx;
  void* y;
  int64_t y_stride;
  int n, tokens, token_stride, groups, units;
  bool accumulate;
};

template <int kTokens, int kStages>
struct SmallShape {
  static constexpr int kConsumers = 256;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kX = kTokens * kUnitChannels;
  static constexpr int kScales = kX + kUnitBytes;  // of X
  static constexpr int kStage = (kScales + kTokens * 4 + 1023) / 1024 * 1024;
  static constexpr int kPitch = kTileRows + 4;
  static constexpr int kShared = std::max(kStage * kStages, kTokens* kPitch * 4);
};

template <typename Y, int kTokens, int kStages, int kResident>
__global__ void __launch_bounds__(SmallShape<kTokens, kStages>::kThreads, kResident)
    gemm_w4a4_small_kernel(const __grid_constant__ SmallArguments p, int splits) {
  using Shape = SmallShape<kTokens, kStages>;
  constexpr int kHalf = kTokens < 64 ? kTokens : 64;  // tokens of one wgmma
  constexpr int kHalves = kTokens / kHalf;
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ uint64_t full[kStages], empty[kStages];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int rank = blockIdx.x % splits, tile = blockIdx.x / splits, m0 = blockIdx.y * kTokens;
  const int begin = p.units * rank / splits, end = p.units * (rank + 1) / splits;
  launch_dependents();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) ptx::barrier_init(&full[i], 1), ptx::barrier_init(&empty[i], 8);
    ptx::fence_barrier_init();
  }
  __syncthreads();

  float acc[kHalves][kHalf / 2] = {};
  const int first_row = warp * 16;  // of the tile
  if (warp == Shape::kConsumers / 32) {
    if (lane == 0) {
      const uint64_t stream = ptx::policy_evict_first(), keep = ptx::policy_evict_last();
      const auto copy_weights = [&](int i) {
        const int slot = i % kStages;
        ptx::barrier_arrive_expect(&full[slot], kUnitBytes + kTokens * (kUnitChannels + 4));
        ptx::bulk_load(shared + slot * Shape::kStage + Shape::kX,
                       p.weight + (static_cast<int64_t>(tile) * p.units + begin + i) * kUnitBytes, kUnitBytes,
                       &full[slot], stream);
      };
      const auto copy_x = [&](int i) {
        const int slot = i % kStages, unit = begin + i;
        const int block = unit < p.groups ? unit : p.groups + (unit - p.groups) / 2;
        uint8_t* stage = shared + slot * Shape::kStage;
        ptx::bulk_load(stage, p.x + (static_cast<int64_t>(block) * p.token_stride + m0) * kUnitChannels,
                       Shape::kX, &full[slot], keep);
        ptx::bulk_load(stage + Shape::kScales,
                       p.sx + static_cast<int64_t>(min(unit, p.groups)) * p.token_stride + m0, kTokens * 4,
                       &full[slot], keep);
      };
      // Weights do not depend on the kernel before this one, activations do.
      const int count = end - begin, head = min(count, kStages);
      for (int i = 0; i < head; ++i) copy_weights(i);
      wait_for_dependencies();
      for (int i = 0; i < head; ++i) copy_x(i);
      for (int i = head; i < count; ++i) {
        ptx::barrier_wait(&empty[i % kStages], (i / kStages - 1) & 1);
        copy_weights(i);
        copy_x(i);
      }
    } else {
      wait_for_dependencies();
    }
  } else {
    wait_for_dependencies();
    int slot = 0, parity = 0;
    int sum[kHalves][kHalf / 2];
    const auto step = [&]<bool kNormal>(int unit) {
      ptx::barrier_wait(&full[slot], parity);
      const uint8_t* stage = shared + slot * Shape::kStage;
      const uint4* in = reinterpret_cast<const uint4*>(stage + Shape::kX + first_row * 64) + lane;
      const uint4 v0 = in[0], v1 = in[32];
      const uint32_t words[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
      const uint64_t x = wgmma::descriptor(ptx::shared_address(stage));
      const __half* sw = reinterpret_cast<const __half*>(stage + Shape::kX + kUnitValueBytes) + first_row + g;
      const float2* sx = reinterpret_cast<const float2*>(stage + Shape::kScales) + t;
      const float w0 = __half2float(sw[0]) * (kNormal ? 0.0625f : 1.0f);
      const float w1 = __half2float(sw[8]) * (kNormal ? 0.0625f : 1.0f);
      uint32_t a[4][4];
      if constexpr (kNormal) {
#pragma unroll
        for (int q = 0; q < 8; ++q) {
          a[q / 2][q % 2 * 2] = (words[q] << 4) & 0xF0F0F0F0u;
          a[q / 2][q % 2 * 2 + 1] = words[q] & 0xF0F0F0F0u;
        }
        wgmma::fence();
#pragma unroll
        for (int h = 0; h < kHalves; ++h)
#pragma unroll
          for (int s = 0; s < 4; ++s) wgmma::multiply(sum[h], a[s], x + h * 512 + s * 2, s);
      } else {
        const int half = (unit - p.groups) % 2 * 4;
        // All outliers of this CTA are one sum.
        const int add = unit > p.groups && unit > begin;
#pragma unroll
        for (int q = 0; q < 8; ++q) a[q / 4][q % 4] = words[q];
        wgmma::fence();
#pragma unroll
        for (int h = 0; h < kHalves; ++h)
#pragma unroll
          for (int s = 0; s < 2; ++s) wgmma::multiply(sum[h], a[s], x + h * 512 + half + s * 2, s + add);
      }
      wgmma::commit();
      wgmma::wait<0>();
      if (kNormal || unit + 1 == end) {
#pragma unroll
        for (int h = 0; h < kHalves; ++h)
#pragma unroll
          for (int k = 0; k < kHalf / 8; ++k) {
            const float2 s = sx[h * 32 + k * 4];
            float* to = acc[h] + 4 * k;
            const int* from = sum[h] + 4 * k;
            to[0] = fmaf(static_cast<float>(from[0]), s.x * w0, to[0]);
            to[1] = fmaf(static_cast<float>(from[1]), s.y * w0, to[1]);
            to[2] = fmaf(static_cast<float>(from[2]), s.x * w1, to[2]);
            to[3] = fmaf(static_cast<float>(from[3]), s.y * w1, to[3]);
          }
      }
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(&empty[slot]);
      if (++slot == kStages) slot = 0, parity ^= 1;
    };
    int unit = begin;
#pragma unroll 1
    for (; unit < min(end, p.groups); ++unit) step.template operator()<true>(unit);
#pragma unroll 1
    for (; unit < end; ++unit) step.template operator()<false>(unit);
  }

  // All copies have landed and have been read: the ring becomes the place of the sums, [tokens][kPitch].
  __syncthreads();
  float* const sums = reinterpret_cast<float*>(shared);
  if (warp < Shape::kConsumers / 32) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int k = 0; k < kHalf / 8; ++k)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          sums[(h * 64 + k * 8 + 2 * t + c % 2) * Shape::kPitch + first_row + g + c / 2 * 8] =
              acc[h][4 * k + c];
  }
  if (splits > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }
  // Every rank adds up its share of the tile, ranks in ascending order; a thread has pairs of rows of one
  // token.
  constexpr int kPairs = kTokens * kTileRows / 2;
  const int from = kPairs * rank / splits, to = kPairs * (rank + 1) / splits;
  const uint32_t base = ptx::shared_address(sums);
  for (int e = from + static_cast<int>(threadIdx.x); e < to; e += Shape::kThreads) {
    const int row = e % (kTileRows / 2) * 2, token = m0 + e / (kTileRows / 2), n = tile * kTileRows + row;
    if (token >= p.tokens || n >= p.n) continue;
    const uint32_t at = base + (e / (kTileRows / 2) * Shape::kPitch + row) * 4;
    float2 total = ptx::load_cluster(ptx::map_shared(at, 0));
    for (int r = 1; r < splits; ++r) {
      const float2 part = ptx::load_cluster(ptx::map_shared(at, r));
      total.x += part.x, total.y += part.y;
    }
    store_pair(static_cast<Y*>(p.y) + token * p.y_stride + n, total, n + 1 < p.n, p.accumulate);
  }
  // Nobody's shared memory may go while others read it.
  if (splits > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace atom::cuda
