#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/gemm_w4a4/large_wgmma.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "tensor/dtype.h"

/// gemm_w4a4_sm90 for many tokens: Y[tokens, n] = X · W^T, computed as Y^T = W · X^T so that the weights are the
/// operand that wgmma takes from registers. Layouts: kernels/cuda/layout.h; numerics: gemm_w4a4.h, bit-identical to
/// the contract (one accumulator, groups ascending, outliers last).
///
/// A persistent CTA computes tiles of kRows output channels by kTokens tokens. One warp loads, per group of 128
/// channels, packed weights, their scales, the tokens' values and scales into a ring of stages by bulk copies; the
/// CTAs of a cluster of two have neighbouring rows and the same tokens, of which each loads one half for both.
/// Each consumer warpgroup owns kBlocks x 64 rows: it unpacks INT4 fragments (16 q, one shift and two ands per eight
/// weights; the 1/16 goes into the scale), issues the next 64 x 64 product, and while that runs converts and scales
/// the one before: acc = fma(float(sum), sx * sw, acc). See docs/kernels/gemm_large.md.
namespace atom::cuda::large {

struct Arguments {
  const uint8_t* weight;
  const int8_t* x;
  const float* sx;
  void* y;
  int64_t y_stride;
  int64_t stride;  ///< token_stride
  int n, tokens, groups, outlier_units;
  int row_tiles, token_tiles;
  int super;  ///< Token tiles that are worked on together before the next rows
  DType y_dtype;
  bool accumulate;
  bool vector_stores;  ///< y and y_stride are multiples of 16 bytes
};

template <int kWarpgroupsOf, int kBlocksOf, int kTokensOf, int kClusterOf>
struct Tile {
  static constexpr int kWarpgroups = kWarpgroupsOf;
  static constexpr int kBlocks = kBlocksOf;
  static constexpr int kTokens = kTokensOf;
  static constexpr int kCluster = kClusterOf;
  static constexpr int kParts = kTokens / 64;
  static constexpr int kRows = kWarpgroups * kBlocks * 64;
  static constexpr int kThreads = kWarpgroups * 128 + 128;
  /// Whether a warpgroup scales one product while its next is under way (registers allow it), or leaves the tensor
  /// cores to the other warpgroups meanwhile.
  static constexpr bool kOverlap = kWarpgroups == 2 || kTokens == 64;
  static constexpr int kConsumerRegisters = kWarpgroups == 2 ? 240 : 160;
  static constexpr int kProducerRegisters = 32;

  // A stage: tokens' values (1024-byte aligned for the swizzle), weights, their scales, the tokens' scales.
  static constexpr int kXBytes = kTokens * kUnitChannels;
  static constexpr int kValueBytes = kRows * 64;
  static constexpr int kScaleBytes = kRows * 2;
  static constexpr int kSxBytes = kTokens * 4;
  static constexpr int kStageBytes = (kXBytes + kValueBytes + kScaleBytes + kSxBytes + 1023) / 1024 * 1024;
  // The epilogue transposes 64 rows x 64 tokens at a time, per warpgroup.
  static constexpr int kPitch = 68;
  static constexpr int kStagingBytes = kWarpgroups * 64 * kPitch * 4;
  static constexpr int kStages =
      (232448 - 1024 - 1024 - kStagingBytes) / kStageBytes < 8 ? (232448 - 1024 - 1024 - kStagingBytes) / kStageBytes : 8;
  static constexpr int kSharedBytes = kStages * kStageBytes + kStagingBytes + 1024 + 2 * kStages * 8;
};

/// Units of outlier channels that stay in the ring together.
inline constexpr int kMaxOutlierUnits = 4;

struct Place {
  int row_tile, token_tile;
};

/// Work items in an order that keeps what runs at the same time in L2: `super` token tiles, all rows, then the next.
__device__ __forceinline__ Place place_of(int item, int row_tiles, int token_tiles, int super) {
  const int band_items = super * row_tiles;
  const int band = item / band_items, within = item - band * band_items;
  const int width = min(super, token_tiles - band * super);
  const int row = within / width;
  return {row, band * super + within - row * width};
}

template <class T>
struct Shared {
  uint8_t* stages;
  float* staging;
  uint64_t* full;
  uint64_t* empty;

  __device__ explicit Shared(uint8_t* raw) {
    stages = raw + (1024 - ptx::shared_address(raw) % 1024) % 1024;
    staging = reinterpret_cast<float*>(stages + T::kStages * T::kStageBytes);
    full = reinterpret_cast<uint64_t*>(reinterpret_cast<uint8_t*>(staging) + T::kStagingBytes);
    empty = full + T::kStages;
  }
  __device__ uint8_t* x(int slot) const { return stages + slot * T::kStageBytes; }
  __device__ uint8_t* values(int slot) const { return x(slot) + T::kXBytes; }
  __device__ uint8_t* scales(int slot) const { return values(slot) + T::kValueBytes; }
  __device__ uint8_t* sx(int slot) const { return scales(slot) + T::kScaleBytes; }
};

/// Position in the ring and the parity of its current use.
template <int kStages>
struct Ring {
  int slot = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

/// The loading warp's one thread.
template <class T>
struct Producer {
  const Arguments& p;
  const Shared<T>& shared;
  int rank;
  uint64_t keep, stream;

  /// Rows are loaded in halves of a weight tile; rows beyond the last tile repeat it (nothing of them is stored).
  __device__ void weights(int slot, int row_tile, int unit) const {
    const bool has_x = unit < p.groups || (unit - p.groups) % 2 == 0;
    ptx::barrier_arrive_expect(&shared.full[slot],
                               T::kValueBytes + T::kScaleBytes + (has_x ? T::kXBytes + T::kSxBytes : 0));
    const int64_t units = p.groups + p.outlier_units;
    const int halves = (p.n + kTileRows - 1) / kTileRows * 2;
    constexpr int kHalves = T::kRows % kTileRows == 0 ? 2 : 1;  // that one copy takes
#pragma unroll
    for (int b = 0; b < T::kRows / 64; b += kHalves) {
      int half = row_tile * (T::kRows / 64) + b;
      if (half >= halves) half = halves - kHalves;
      const uint8_t* from = p.weight + (half / 2 * units + unit) * kUnitBytes;
      ptx::bulk_load(shared.values(slot) + b * 4096, from + half % 2 * 4096, kHalves * 4096, &shared.full[slot], stream);
      ptx::bulk_load(shared.scales(slot) + b * 128, from + kUnitValueBytes + half % 2 * 128, kHalves * 128,
                     &shared.full[slot], stream);
    }
  }
  __device__ void activations(int slot, int token_tile, int unit) const {
    const bool normal = unit < p.groups;
    if (!normal && (unit - p.groups) % 2 != 0) return;
    const int64_t block = normal ? unit : p.groups + (unit - p.groups) / 2;
    const int64_t group = normal ? unit : p.groups;
    const int64_t token = static_cast<int64_t>(token_tile) * T::kTokens;
    ptx::bulk_load(shared.sx(slot), p.sx + group * p.stride + token, T::kSxBytes, &shared.full[slot], keep);
    const int8_t* from = p.x + (block * p.stride + token) * kUnitChannels;
    if constexpr (T::kCluster == 1) {
      ptx::bulk_load(shared.x(slot), from, T::kXBytes, &shared.full[slot], keep);
    } else {
      constexpr int kShare = T::kXBytes / T::kCluster;
      ptx::bulk_load_multicast(shared.x(slot) + rank * kShare, from + rank * kShare, kShare, &shared.full[slot],
                               (1 << T::kCluster) - 1, keep);
    }
  }
};

/// Signed INT4 fragments as INT8 of 16 times their value: the words of a lane's 2 x 16 bytes, for 4 steps of 32
/// channels.
__device__ __forceinline__ void unpack(uint32_t (&a)[4][4], const uint4& v0, const uint4& v1) {
  const uint32_t words[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    a[i / 2][i % 2 * 2] = (words[i] << 4) & 0xF0F0F0F0u;
    a[i / 2][i % 2 * 2 + 1] = words[i] & 0xF0F0F0F0u;
  }
}

/// Four steps of 32 channels: 64 rows x 64 tokens of a group.
__device__ __forceinline__ void multiply(int (&d)[32], const uint32_t (&a)[4][4], uint64_t tokens) {
  wgmma_fence();
  wgmma_64<0>(d, a[0], tokens);
  wgmma_64<1>(d, a[1], tokens + 2);
  wgmma_64<1>(d, a[2], tokens + 4);
  wgmma_64<1>(d, a[3], tokens + 6);
  wgmma_commit();
}

/// acc = fma(float(sum), sx * sw, acc) for 64 x 64 sums; w0 and w1 are the scales of the lane's rows g and g + 8, sx
/// points at the scale of its first token (2 t).
__device__ __forceinline__ void scale(float (&acc)[32], const int (&d)[32], const float* sx, float w0, float w1) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const float2 s = *reinterpret_cast<const float2*>(sx + k * 8);
    acc[4 * k] = fmaf(static_cast<float>(d[4 * k]), s.x * w0, acc[4 * k]);
    acc[4 * k + 1] = fmaf(static_cast<float>(d[4 * k + 1]), s.y * w0, acc[4 * k + 1]);
    acc[4 * k + 2] = fmaf(static_cast<float>(d[4 * k + 2]), s.x * w1, acc[4 * k + 2]);
    acc[4 * k + 3] = fmaf(static_cast<float>(d[4 * k + 3]), s.y * w1, acc[4 * k + 3]);
  }
}

template <class Out>
__device__ __forceinline__ float widen(Out v) {
  if constexpr (sizeof(Out) == 4) return v;
  else return static_cast<float>(v);
}
template <class Out>
__device__ __forceinline__ Out narrow(float v) {
  if constexpr (sizeof(Out) == 4) return v;
  else if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(v);
  else return __float2bfloat16_rn(v);
}

/// Writes 64 rows x 64 tokens from the staging buffer [token][kPitch], 16 bytes a thread and step.
template <class Out, class T>
__device__ __forceinline__ void store(const Arguments& p, const float* staging, int thread, int row, int token) {
  constexpr int kVector = 16 / sizeof(Out), kThreadsPerToken = 64 / kVector, kTokensPerStep = 128 / kThreadsPerToken;
  const int column = thread % kThreadsPerToken * kVector;
  if (row + column >= p.n) return;
  const bool whole = p.vector_stores && row + column + kVector <= p.n;
#pragma unroll 2
  for (int i = thread / kThreadsPerToken; i < 64; i += kTokensPerStep) {
    if (token + i >= p.tokens) return;
    Out* to = static_cast<Out*>(p.y) + (token + i) * p.y_stride + row + column;
    float v[kVector];
#pragma unroll
    for (int j = 0; j < kVector; j += 4)
      *reinterpret_cast<float4*>(v + j) = *reinterpret_cast<const float4*>(staging + i * T::kPitch + column + j);
    if (whole) {
      alignas(16) Out out[kVector];
      if (p.accumulate) {
        *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(to);
#pragma unroll
        for (int j = 0; j < kVector; ++j) v[j] = widen(out[j]) + v[j];
      }
#pragma unroll
      for (int j = 0; j < kVector; ++j) out[j] = narrow<Out>(v[j]);
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(out);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        if (row + column + j < p.n) to[j] = narrow<Out>(p.accumulate ? widen(to[j]) + v[j] : v[j]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1) gemm_w4a4_large_kernel(const __grid_constant__ Arguments p) {
  extern __shared__ uint8_t raw[];
  const Shared<T> shared(raw);
  const int warpgroup = threadIdx.x / 128;
  const int rank = T::kCluster == 1 ? 0 : blockIdx.x % T::kCluster;
  if (threadIdx.x == 0) {
    for (int i = 0; i < T::kStages; ++i) {
      ptx::barrier_init(&shared.full[i], 1);
      ptx::barrier_init(&shared.empty[i], T::kCluster * T::kWarpgroups * 4);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if constexpr (T::kCluster > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
  ptx::launch_dependents();

  const int row_clusters = (p.row_tiles + T::kCluster - 1) / T::kCluster;
  const int items = row_clusters * p.token_tiles;
  const int first_item = blockIdx.x / T::kCluster, item_step = gridDim.x / T::kCluster;
  const int units = p.groups + p.outlier_units;

  if (warpgroup == T::kWarpgroups) {
    shrink_registers<T::kProducerRegisters>();
    if (threadIdx.x == T::kWarpgroups * 128) {
      const Producer<T> producer{p, shared, rank, ptx::policy_evict_last(), ptx::policy_evict_first()};
      Ring<T::kStages> ring;
      // Weights do not depend on the kernel before this one, activations do.
      int ahead = min(units, T::kStages);
      if (first_item < items) {
        const Place place = place_of(first_item, row_clusters, p.token_tiles, p.super);
        for (int u = 0; u < ahead; ++u) producer.weights(u, place.row_tile * T::kCluster + rank, u);
      }
      ptx::dependency_wait();
      bool reuse = false;
      for (int item = first_item; item < items; item += item_step) {
        const Place place = place_of(item, row_clusters, p.token_tiles, p.super);
        for (int u = 0; u < units; ++u, ring.next()) {
          if (ahead > 0) {
            --ahead;
          } else {
            if (reuse) ptx::barrier_wait_cluster(&shared.empty[ring.slot], ring.parity ^ 1);
            producer.weights(ring.slot, place.row_tile * T::kCluster + rank, u);
          }
          producer.activations(ring.slot, place.token_tile, u);
          if (ring.slot == T::kStages - 1) reuse = true;
        }
      }
    }
  } else {
    grow_registers<T::kConsumerRegisters>();
    ptx::dependency_wait();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int first_block = warpgroup * T::kBlocks;  // of 64 rows
    const auto release = [&](int slot) {
      __syncwarp();
      if constexpr (T::kCluster == 1) {
        if (lane == 0) ptx::barrier_arrive(&shared.empty[slot]);
      } else {
        if (lane < T::kCluster) ptx::barrier_arrive_remote(&shared.empty[slot], lane);
      }
    };
    const int fragment_offset = (first_block * 4 + warp) * 1024 + lane * 16;
    const int scale_offset = first_block * 64 + warp * 16 + g;
    Ring<T::kStages> ring;
    for (int item = first_item; item < items; item += item_step) {
      float acc[T::kBlocks][T::kParts][32] = {};
      int d[2][32];
      uint32_t a[4][4];
      // Of the product that is under way when a step begins:
      const float* last_sx = nullptr;
      float last_w0 = 0.0f, last_w1 = 0.0f;
      int last_slot = 0;

      // One group's 64 rows. kOdd: which of two alternating register sets is this step's.
      const auto step = [&]<int kBlock, int kOdd, bool kFirst, bool kOverlap>() {
        [[maybe_unused]] constexpr int kLastBlock = (kBlock + T::kBlocks - 1) % T::kBlocks;
        constexpr int kNow = T::kParts == 2 ? 0 : kOdd, kLast = 1 - kNow;
        const uint4* packed = reinterpret_cast<const uint4*>(shared.values(ring.slot) + fragment_offset + kBlock * 4096);
        const uint4 v0 = packed[0], v1 = packed[32];
        const __half* sw = reinterpret_cast<const __half*>(shared.scales(ring.slot)) + scale_offset + kBlock * 64;
        const float w0 = __half2float(sw[0]) * 0.0625f, w1 = __half2float(sw[8]) * 0.0625f;
        const float* sx = reinterpret_cast<const float*>(shared.sx(ring.slot)) + 2 * t;
        const uint64_t tokens = tokens_descriptor(ptx::shared_address(shared.x(ring.slot)));
        if constexpr (kOverlap && !kFirst) {
          wgmma_wait<0>();
          claim(d[kLast]);
        }
        unpack(a, v0, v1);
        if constexpr (kOverlap) {
          multiply(d[kNow], a, tokens);
          if constexpr (!kFirst) {
            scale(acc[kLastBlock][T::kParts - 1], d[kLast], last_sx, last_w0, last_w1);
            if constexpr (kBlock == 0) release(last_slot);
          }
          if constexpr (T::kParts == 2) {
            multiply(d[1], a, tokens + 512);
            wgmma_wait<1>();
            claim(d[0]);
            scale(acc[kBlock][0], d[0], sx, w0, w1);
          }
          last_sx = sx + (T::kParts - 1) * 64;
          last_w0 = w0, last_w1 = w1, last_slot = ring.slot;
        } else {
#pragma unroll
          for (int part = 0; part < T::kParts; ++part) {
            multiply(d[0], a, tokens + part * 512);
            wgmma_wait<0>();
            claim(d[0]);
            scale(acc[kBlock][part], d[0], sx + part * 64, w0, w1);
          }
          if constexpr (kBlock == T::kBlocks - 1) release(ring.slot);
        }
      };
      const auto group = [&]<int kOdd, bool kFirst, bool kOverlap>() {
        ptx::barrier_wait(&shared.full[ring.slot], ring.parity);
        step.template operator()<0, kOdd, kFirst, kOverlap>();
        if constexpr (T::kBlocks == 2) step.template operator()<1, 1 - kOdd, false, kOverlap>();
        ring.next();
      };
      int left = p.groups;
      if constexpr (!T::kOverlap) {
        for (; left > 0; --left) group.template operator()<0, false, false>();
      } else if constexpr (T::kParts == 2) {
        if (left > 0) {
          group.template operator()<0, true, true>();
          for (--left; left > 0; --left) group.template operator()<0, false, true>();
          wgmma_wait<0>();
          claim(d[1]);
          scale(acc[T::kBlocks - 1][1], d[1], last_sx, last_w0, last_w1);
          release(last_slot);
        }
      } else {
        // One product a group: groups go in pairs, the products alternate between d[0] and d[1].
        if (left % 2 != 0) group.template operator()<0, false, false>(), --left;
        uint4 v0, v1;
        float w0, w1;
        const auto fetch = [&]() {
          ptx::barrier_wait(&shared.full[ring.slot], ring.parity);
          const uint4* packed = reinterpret_cast<const uint4*>(shared.values(ring.slot) + fragment_offset);
          v0 = packed[0], v1 = packed[32];
          const __half* sw = reinterpret_cast<const __half*>(shared.scales(ring.slot)) + scale_offset;
          w0 = __half2float(sw[0]) * 0.0625f, w1 = __half2float(sw[8]) * 0.0625f;
        };
        const auto alternate = [&]<int kOdd, bool kFirst>(bool more) {
          unpack(a, v0, v1);
          multiply(d[kOdd], a, tokens_descriptor(ptx::shared_address(shared.x(ring.slot))));
          if constexpr (!kFirst) {
            scale(acc[0][0], d[1 - kOdd], last_sx, last_w0, last_w1);
            release(last_slot);
          }
          last_sx = reinterpret_cast<const float*>(shared.sx(ring.slot)) + 2 * t;
          last_w0 = w0, last_w1 = w1, last_slot = ring.slot;
          ring.next();
          if (more) fetch();
          wgmma_wait<0>();
          claim(d[kOdd]);
        };
        if (left > 0) {
          fetch();
          alternate.template operator()<0, true>(true);
          for (left -= 2; left > 0; left -= 2) {
            alternate.template operator()<1, false>(true);
            alternate.template operator()<0, false>(true);
          }
          alternate.template operator()<1, false>(false);
          scale(acc[0][0], d[1], last_sx, last_w0, last_w1);
          release(last_slot);
        }
      }
      if (p.outlier_units > 0) {
        const int slot0 = ring.slot;
        for (int u = 0; u < p.outlier_units; ++u, ring.next()) ptx::barrier_wait(&shared.full[ring.slot], ring.parity);
        const float* sx = reinterpret_cast<const float*>(shared.sx(slot0)) + 2 * t;
#pragma unroll
        for (int b = 0; b < T::kBlocks; ++b) {
          const __half* sw = reinterpret_cast<const __half*>(shared.scales(slot0)) + scale_offset + b * 64;
          const float w0 = __half2float(sw[0]), w1 = __half2float(sw[8]);
#pragma unroll
          for (int part = 0; part < T::kParts; ++part) {
            int slot = slot0, x_slot = slot0;
#pragma unroll
            for (int i = 0; i < 32; ++i) d[0][i] = 0;
#pragma unroll 1
            for (int u = 0; u < p.outlier_units; ++u) {
              if (u % 2 == 0) x_slot = slot;
              const uint4* whole = reinterpret_cast<const uint4*>(shared.values(slot) + fragment_offset + b * 4096);
              const uint4 v0 = whole[0], v1 = whole[32];
              a[0][0] = v0.x, a[0][1] = v0.y, a[0][2] = v0.z, a[0][3] = v0.w;
              a[1][0] = v1.x, a[1][1] = v1.y, a[1][2] = v1.z, a[1][3] = v1.w;
              const uint64_t tokens =
                  tokens_descriptor(ptx::shared_address(shared.x(x_slot))) + part * 512 + u % 2 * 4;
              wgmma_fence();
              wgmma_64<1>(d[0], a[0], tokens);
              wgmma_64<1>(d[0], a[1], tokens + 2);
              wgmma_commit();
              wgmma_wait<0>();
              claim(d[0]);
              if (++slot == T::kStages) slot = 0;
            }
            scale(acc[b][part], d[0], sx + part * 64, w0, w1);
          }
        }
        int slot = slot0;
        for (int u = 0; u < p.outlier_units; ++u) {
          release(slot);
          if (++slot == T::kStages) slot = 0;
        }
      }

      const Place place = place_of(item, row_clusters, p.token_tiles, p.super);
      const int row0 = (place.row_tile * T::kCluster + rank) * T::kRows + first_block * 64;
      float* staging = shared.staging + warpgroup * 64 * T::kPitch;
#pragma unroll
      for (int b = 0; b < T::kBlocks; ++b) {
#pragma unroll
        for (int part = 0; part < T::kParts; ++part) {
          ptx::named_barrier(1 + warpgroup, 128);
#pragma unroll
          for (int i = 0; i < 32; ++i)
            staging[(i / 4 * 8 + 2 * t + i % 2) * T::kPitch + warp * 16 + g + i % 4 / 2 * 8] = acc[b][part][i];
          ptx::named_barrier(1 + warpgroup, 128);
          const int row = row0 + b * 64, token = place.token_tile * T::kTokens + part * 64, thread = threadIdx.x % 128;
          if (p.y_dtype == DType::f32) {
            store<float, T>(p, staging, thread, row, token);
          } else if (p.y_dtype == DType::f16) {
            store<__half, T>(p, staging, thread, row, token);
          } else {
            store<__nv_bfloat16, T>(p, staging, thread, row, token);
          }
        }
      }
    }
  }
  if constexpr (T::kCluster > 1) {
    // Nobody leaves while its shared memory may still be written to, or its barriers arrived at.
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace atom::cuda::large
