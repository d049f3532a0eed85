#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/divided_device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/wgmma.cuh"

/// W4A4 / W4A8 GEMM for 1 to 128 tokens: Y[tokens, n] = X · W^T, by wgmma as Y^T = W · X^T.
///
/// CTAs, one or two to a multiprocessor, get whole tiles of 128 rows (exact: an accumulator keeps the
/// contract's order), or as many (tile, unit of K) items each as any other, one tile behind the other. One
/// thread keeps a ring of kStages items in flight (W with its scales, X and its scales; bulk copies that
/// complete on mbarriers). Two warpgroups of 64 rows each take W from the ring to registers, unpack it to
/// 8-bit fragments (a nibble as 16 q, the 1/16 folded into the scale), multiply by wgmma with X from shared
/// memory, and add the scaled sums of a unit to FP32 accumulators. CTAs that share a tile write their sums to
/// scratch memory, count each other in, and each adds up and stores its share of the tile, in ascending order
/// of K. W does not depend on the kernel before: the ring is filled with it before the dependency wait.
namespace atom::cuda {

struct DividedArguments {
  const uint8_t* weight;
  const int8_t* x;
  const float* sx;
  void* y;
  float4* partials;    // [CTAs][first tile, last tile][kTokens / 8][256 threads], where `even`
  unsigned* counters;  // [CTAs], of the tile that is the last one of this CTA and that others share
  int64_t y_stride;
  int n, tokens, token_stride, groups, units;
  int tiles;
  bool even;  // CTAs get items rather than tiles
  bool accumulate;
};

template <int kTokens, int kStages>
struct DividedShape {
  static constexpr int kConsumers = 256;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kWeights = kTokens * kUnitChannels;  // offsets in a stage: X first
  static constexpr int kXScales = kWeights + kUnitBytes;
  static constexpr int kStage = (kXScales + kTokens * 4 + 1023) / 1024 * 1024;
  static constexpr int kShared = kStage * kStages;
};

/// How items are divided.
struct Division {
  int64_t items;  // of all CTAs; or tiles, of `scale` items
  int scale, ctas;

  __device__ __forceinline__ explicit Division(const DividedArguments& p)
      : items(p.even ? static_cast<int64_t>(p.tiles) * p.units : p.tiles),
        scale(p.even ? 1 : p.units),
        ctas(gridDim.x) {}
  /// First item of a CTA.
  __device__ __forceinline__ int begin(int cta) const { return static_cast<int>(items * cta / ctas) * scale; }
  /// The CTA that has an item, where `even`.
  __device__ __forceinline__ int owner(int item) const {
    return static_cast<int>(((item + int64_t{1}) * ctas - 1) / items);
  }
};

template <typename Y, int kTokens, int kStages, int kResident>
__global__ void __launch_bounds__(DividedShape<kTokens, kStages>::kThreads, kResident)
    gemm_w4a4_divided_kernel(const __grid_constant__ DividedArguments p) {
  using Shape = DividedShape<kTokens, kStages>;
  constexpr int kHalf = kTokens < 64 ? kTokens : 64;  // tokens of one wgmma
  constexpr int kHalves = kTokens / kHalf;
  constexpr int kWarps = Shape::kConsumers / 32;
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ uint64_t barriers[2 * kStages];
  uint64_t* const full = barriers;
  uint64_t* const empty = barriers + kStages;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int cta = blockIdx.x, m0 = blockIdx.y * kTokens;
  const Division division(p);
  const int first = division.begin(cta), last = division.begin(cta + 1);
  launch_dependents();

  if (warp == kWarps) {
    const int count = last - first;
    const uint64_t stream = ptx::policy_evict_first(), keep = ptx::policy_evict_last();
    const uint8_t* w = p.weight + static_cast<int64_t>(first) * kUnitBytes;
    int unit = first % p.units;
    const auto copy_weights = [&](int slot) {
      ptx::barrier_arrive_expect(&full[slot], kUnitBytes + kTokens * (kUnitChannels + 4));
      ptx::bulk_load(shared + slot * Shape::kStage + Shape::kWeights, w, kUnitBytes, &full[slot], stream);
      w += kUnitBytes;
    };
    const auto copy_x = [&](int slot) {
      const int block = unit < p.groups ? unit : p.groups + (unit - p.groups) / 2;
      uint8_t* const stage = shared + slot * Shape::kStage;
      ptx::bulk_load(stage, p.x + (static_cast<int64_t>(block) * p.token_stride + m0) * kUnitChannels,
                     kTokens * kUnitChannels, &full[slot], keep);
      ptx::bulk_load(stage + Shape::kXScales,
                     p.sx + static_cast<int64_t>(min(unit, p.groups)) * p.token_stride + m0, kTokens * 4,
                     &full[slot], keep);
      if (++unit == p.units) unit = 0;
    };
    const int head = min(count, kStages);
    if (lane == 0) {
      for (int i = 0; i < kStages; ++i) ptx::barrier_init(&full[i], 1), ptx::barrier_init(&empty[i], kWarps);
      ptx::fence_barrier_init();
      for (int i = 0; i < head; ++i) copy_weights(i);
    }
    __syncwarp();
    __syncthreads();
    if (lane == 0) {
      wait_for_dependencies();
      for (int i = 0; i < head; ++i) copy_x(i);
      int slot = 0, parity = 0;
      for (int i = kStages; i < count; ++i) {
        ptx::barrier_wait(&empty[slot], parity);
        copy_weights(slot);
        copy_x(slot);
        if (++slot == kStages) slot = 0, parity ^= 1;
      }
    }
    return;
  }

  __syncthreads();
  wait_for_dependencies();
  const uint32_t base = ptx::shared_address(shared);
  // Addresses in stage 0.
  const uint32_t weights = pin(base + Shape::kWeights + warp * 1024 + lane * 16);
  const uint32_t scales = pin(base + Shape::kWeights + kUnitValueBytes + (warp * 16 + g) * 2);
  const uint32_t x_scales = pin(base + Shape::kXScales + t * 8);
  const uint32_t full_at = pin(ptx::shared_address(full));
  const uint32_t x = pin(static_cast<uint32_t>(wgmma::descriptor(base)));
  float acc[kHalves][kHalf / 2];
  int sum[kHalves][kHalf / 2];
  int slot = 0, parity = 0;
  // One item. `half`: of the block of X; `fresh` and `done`: the sums begin, end with it.
  const auto step = [&]<bool kNormal>(int half, bool fresh, bool done) {
    constexpr int kSteps = kNormal ? 4 : 2;
    const int at = slot * Shape::kStage;
    ptx::barrier_wait_at(full_at + slot * 8, parity);
    const uint4 v0 = load_vector(weights + at), v1 = load_vector(weights + at + 512);
    const uint32_t words[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
    const float w0 = load_half(scales + at) * (kNormal ? 0.0625f : 1.0f);
    const float w1 = load_half(scales + at + 16) * (kNormal ? 0.0625f : 1.0f);
    uint32_t a[kSteps][4];
#pragma unroll
    for (int q = 0; q < 8; ++q) {
      if constexpr (kNormal) {
        a[q / 2][q % 2 * 2] = (words[q] << 4) & 0xF0F0F0F0u;
        a[q / 2][q % 2 * 2 + 1] = words[q] & 0xF0F0F0F0u;
      } else {
        a[q / 4][q % 4] = words[q];
      }
    }
    keep(a);
    const uint32_t b = x + at / 16 + (kNormal ? 0 : half * 4);
    wgmma::fence();
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
        wgmma::multiply(sum[h], a[s], with_low_word(b + h * (kHalf * kUnitChannels / 16) + s * 2),
                        s > 0 || !fresh);
      wgmma::commit();
    }
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      h + 1 < kHalves ? wgmma::wait<1>() : wgmma::wait<0>();
      claim(sum[h]);
      if (kNormal || done) {
#pragma unroll
        for (int k = 0; k < kHalf / 8; ++k) {
          const float2 s = load_floats(x_scales + at + (h * kHalf + k * 8) * 4);
          float* to = acc[h] + 4 * k;
          const int* from = sum[h] + 4 * k;
          to[0] = fmaf(static_cast<float>(from[0]), s.x * w0, to[0]);
          to[1] = fmaf(static_cast<float>(from[1]), s.y * w0, to[1]);
          to[2] = fmaf(static_cast<float>(from[2]), s.x * w1, to[2]);
          to[3] = fmaf(static_cast<float>(from[3]), s.y * w1, to[3]);
        }
      }
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive_at(full_at + (kStages + slot) * 8);
    if (++slot == kStages) slot = 0, parity ^= 1;
  };

  // Tokens 8 k ... 8 k + 7 of 16 rows of W are a piece: a float4 a lane, in memory as in the accumulators.
  constexpr int kPieces = kTokens / 8;
  const auto partial = [&](int of_cta, int which) {
    return p.partials + (static_cast<int64_t>(of_cta) * 2 + which) * (kPieces * Shape::kConsumers);
  };
  // At most the first tile and the last one of a CTA are shared.
  struct {
    int tile, first_cta, ctas;
  } tiles[2] = {};
  int shared_tiles = 0;
  for (int item = first; item < last;) {
    const int tile = item / p.units, begin = item - tile * p.units, end = min(p.units, begin + last - item);
    item += end - begin;
#pragma unroll
    for (int h = 0; h < kHalves; ++h)
#pragma unroll
      for (int i = 0; i < kHalf / 2; ++i) acc[h][i] = 0.0f;
    int unit = begin;
#pragma unroll 1
    for (; unit < min(end, p.groups); ++unit) step.template operator()<true>(0, true, true);
#pragma unroll 1
    for (; unit < end; ++unit)
      step.template operator()<false>((unit - p.groups) % 2, unit == max(begin, p.groups), unit + 1 == end);
    const bool whole = end - begin == p.units;
    float4* const to = partial(cta, begin == 0) + threadIdx.x;
    Store<Y> store(p, m0, lane);
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const float* v = acc[k / (kHalf / 8)] + k % (kHalf / 8) * 4;
      const float4 piece = make_float4(v[0], v[1], v[2], v[3]);
      if (whole) {
        store(piece, tile * kTileRows + warp * 16, k * 8);
      } else {
        __stcg(to + k * Shape::kConsumers, piece);
      }
    }
    if (!whole) {
      const int first_cta = division.owner(tile * p.units);
      tiles[1] = {tile, first_cta, division.owner((tile + 1) * p.units - 1) + 1 - first_cta};
      if (shared_tiles++ == 0) tiles[0] = tiles[1];
    }
  }
  if (shared_tiles == 0) return;

  // The CTAs of a tile add up to 2^31: the top bit of its counter changes when the last one has come.
  ptx::named_barrier(1, Shape::kConsumers);
  if (lane == 0 && warp < shared_tiles) {
    const int first_cta = warp == 0 ? tiles[0].first_cta : tiles[1].first_cta;
    const int ctas = warp == 0 ? tiles[0].ctas : tiles[1].ctas;
    unsigned* const counter = p.counters + first_cta;
    __threadfence();
    const unsigned old = atomicAdd(counter, cta == first_cta ? 0x80000000u - (ctas - 1) : 1u);
    while ((load_acquire(counter) ^ old) >> 31 == 0) {
    }
  }
  ptx::named_barrier(1, Shape::kConsumers);
  const Store<Y> store(p, m0, lane);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (i == shared_tiles) break;
    const int ctas = tiles[i].ctas, mine = cta - tiles[i].first_cta;
    const int to = kPieces * kWarps * (mine + 1) / ctas;
    // Latencies overlap: of kBatch pieces, and of kCtas CTAs.
    constexpr int kBatch = kPieces < 4 ? kPieces : 4, kCtas = 3;
    for (int first_piece = kPieces * kWarps * mine / ctas + warp; first_piece < to;
         first_piece += kBatch * kWarps) {
      float4 total[kBatch];
      int offsets[kBatch];
#pragma unroll
      for (int q = 0; q < kBatch; ++q) {
        const int piece = min(first_piece + q * kWarps, to - 1);
        offsets[q] = piece * 32 + lane;
        total[q] = __ldcg(partial(tiles[i].first_cta, 1) + offsets[q]);
      }
      for (int other = 1; other < ctas; other += kCtas) {
        float4 v[kCtas][kBatch];
#pragma unroll
        for (int c = 0; c < kCtas; ++c)
          if (other + c < ctas) {
            const float4* const from = partial(tiles[i].first_cta + other + c, 0);
#pragma unroll
            for (int q = 0; q < kBatch; ++q) v[c][q] = __ldcg(from + offsets[q]);
          }
#pragma unroll
        for (int c = 0; c < kCtas; ++c)
          if (other + c < ctas) {
#pragma unroll
            for (int q = 0; q < kBatch; ++q)
              total[q] = make_float4(total[q].x + v[c][q].x, total[q].y + v[c][q].y, total[q].z + v[c][q].z,
                                     total[q].w + v[c][q].w);
          }
      }
#pragma unroll
      for (int q = 0; q < kBatch; ++q) {
        const int piece = first_piece + q * kWarps;
        if (piece < to) store(total[q], tiles[i].tile * kTileRows + piece % kWarps * 16, piece / kWarps * 8);
      }
    }
  }
}

}  // namespace atom::cuda
