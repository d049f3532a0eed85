#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "kernels/cuda/gemm_w4a4/large_device.cuh"
#include "kernels/cuda/gemm_w4a4/large_tile.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/wgmma.cuh"
#include "tensor/dtype.h"

/// gemm_w4a4_sm90 for many tokens: Y[tokens, n] = X · W^T, computed as Y^T = W · X^T so that the weights are
/// the operand that wgmma takes from registers. Layouts: kernels/cuda/layout.h; numerics: gemm_w4a4.h,
/// bit-identical to the contract (one accumulator, groups ascending, outliers last).
///
/// A persistent CTA computes tiles of kRows output channels by kTokens tokens. One warp loads, per group of
/// 128 channels, packed weights, their scales, the tokens' values and scales into a ring of stages by bulk
/// copies; the CTAs of a cluster of two have neighbouring rows and the same tokens, of which each loads one
/// half for both. Each consumer warpgroup owns 64 rows: it unpacks INT4 fragments (16 q, one shift and two
/// ands per eight weights; the 1/16 goes into the scale), issues products of 64 x 64 and 128 channels, and
/// converts and scales their sums: acc = fma(float(sum), sx * sw, acc). Meanwhile the others' products run,
/// and in tiles of 128 x 128 its own next one. See docs/kernels/gemm_large.md.
namespace atom::cuda::large {

/// The loading warp's one thread.
template <class T>
struct Producer {
  const Arguments& p;
  uint8_t* shared;
  int rank;
  uint64_t keep, stream;

  __device__ uint8_t* stage(int slot) const { return shared + slot * T::kStageBytes; }
  __device__ uint64_t* full(int slot) const {
    return reinterpret_cast<uint64_t*>(shared + T::kBarriersAt) + slot;
  }
  __device__ uint64_t* empty(int slot) const { return full(slot) + T::kStages; }

  /// Rows are loaded in halves of a weight tile; rows beyond the last tile repeat it (nothing of them is
  /// stored).
  __device__ void weights(int slot, int row_tile, int unit) const {
    const bool has_x = unit < p.groups || (unit - p.groups) % 2 == 0;
    ptx::barrier_arrive_expect(full(slot),
                               T::kValueBytes + T::kScaleBytes + (has_x ? T::kXBytes + T::kSxBytes : 0));
    const int64_t units = p.groups + p.outlier_units;
    const int halves = (p.n + kTileRows - 1) / kTileRows * 2;
    constexpr int kHalves = T::kRows % kTileRows == 0 ? 2 : 1;  // that one copy takes
#pragma unroll
    for (int b = 0; b < T::kRows / 64; b += kHalves) {
      int half = row_tile * (T::kRows / 64) + b;
      if (half >= halves) half = halves - kHalves;
      const uint8_t* from = p.weight + (half / 2 * units + unit) * kUnitBytes;
      ptx::bulk_load(stage(slot) + T::kValuesAt + b * 4096, from + half % 2 * 4096, kHalves * 4096,
                     full(slot), stream);
      ptx::bulk_load(stage(slot) + T::kScalesAt + b * 128, from + kUnitValueBytes + half % 2 * 128,
                     kHalves * 128, full(slot), stream);
    }
  }
  __device__ void activations(int slot, int token_tile, int unit) const {
    const bool normal = unit < p.groups;
    if (!normal && (unit - p.groups) % 2 != 0) return;
    const int64_t block = normal ? unit : p.groups + (unit - p.groups) / 2;
    const int64_t group = normal ? unit : p.groups;
    const int64_t token = static_cast<int64_t>(token_tile) * T::kTokens;
    ptx::bulk_load(stage(slot) + T::kSxAt, p.sx + group * p.stride + token, T::kSxBytes, full(slot), keep);
    const int8_t* from = p.x + (block * p.stride + token) * kUnitChannels;
    if constexpr (T::kCluster == 1) {
      ptx::bulk_load(stage(slot), from, T::kXBytes, full(slot), keep);
    } else {
      constexpr int kShare = T::kXBytes / T::kCluster;
      ptx::bulk_load_multicast(stage(slot) + rank * kShare, from + rank * kShare, kShare, full(slot),
                               (1 << T::kCluster) - 1, keep);
    }
  }
};

/// Signed INT4 fragments as INT8 of 16 times their value: the words of a lane's 2 x 16 bytes, for 4 steps of
/// 32 channels.
__device__ __forceinline__ void unpack(uint32_t (&a)[4][4], const uint4& v0, const uint4& v1) {
  const uint32_t words[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    a[i / 2][i % 2 * 2] = (words[i] << 4) & 0xF0F0F0F0u;
    a[i / 2][i % 2 * 2 + 1] = words[i] & 0xF0F0F0F0u;
  }
}

/// Four steps of 32 channels: 64 rows x 2 kSums tokens of a group.
template <int kSums>
__device__ __forceinline__ void multiply(int (&d)[kSums], const uint32_t (&a)[4][4], uint64_t tokens) {
  wgmma::fence();
  wgmma::multiply(d, a[0], tokens, 0);
  wgmma::multiply(d, a[1], tokens + 2, 1);
  wgmma::multiply(d, a[2], tokens + 4, 1);
  wgmma::multiply(d, a[3], tokens + 6, 1);
  wgmma::commit();
}

/// acc = fma(float(sum), sx * sw, acc) for the sums of 8 tokens; w0 and w1 are the scales of the lane's rows
/// g and g + 8, s those of its tokens 2 t and 2 t + 1.
__device__ __forceinline__ void scale(float* acc, const int* d, float2 s, float w0, float w1) {
  acc[0] = fmaf(static_cast<float>(d[0]), s.x * w0, acc[0]);
  acc[1] = fmaf(static_cast<float>(d[1]), s.y * w0, acc[1]);
  acc[2] = fmaf(static_cast<float>(d[2]), s.x * w1, acc[2]);
  acc[3] = fmaf(static_cast<float>(d[3]), s.y * w1, acc[3]);
}

template <class Out>
__device__ __forceinline__ float widen(Out v) {
  if constexpr (sizeof(Out) == 4)
    return v;
  else
    return static_cast<float>(v);
}
template <class Out>
__device__ __forceinline__ Out narrow(float v) {
  if constexpr (sizeof(Out) == 4)
    return v;
  else if constexpr (std::is_same_v<Out, __half>)
    return __float2half_rn(v);
  else
    return __float2bfloat16_rn(v);
}

/// Writes 64 rows x 32 tokens from the staging buffer [token][kPitch], 16 bytes a thread and step.
template <class Out, class T>
__device__ __forceinline__ void store(const Arguments& p, const float* staging, int thread, int row,
                                      int token) {
  constexpr int kVector = 16 / sizeof(Out), kThreadsPerToken = 64 / kVector,
                kTokensPerStep = 128 / kThreadsPerToken;
  const int column = thread % kThreadsPerToken * kVector;
  if (row + column >= p.n) return;
  const bool whole = p.vector_stores && row + column + kVector <= p.n;
#pragma unroll 2
  for (int i = thread / kThreadsPerToken; i < 32; i += kTokensPerStep) {
    if (token + i >= p.tokens) return;
    Out* to = static_cast<Out*>(p.y) + (token + i) * p.y_stride + row + column;
    float v[kVector];
#pragma unroll
    for (int j = 0; j < kVector; j += 4)
      *reinterpret_cast<float4*>(v + j) =
          *reinterpret_cast<const float4*>(staging + i * T::kPitch + column + j);
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

/// A consumer warpgroup's walk over the ring. Addresses are kept in registers: left to itself, the compiler
/// computes them anew in every group, on the critical path.
template <class T>
struct Consumer {
  uint32_t stage, barrier, parity = 0, end;
  uint32_t values_at, scales_at, sx_at, tokens_at;

  __device__ Consumer(uint32_t shared, int row_group, int token_group, int warp, int lane) {
    stage = pin(shared);
    barrier = pin(shared + T::kBarriersAt);
    end = pin(shared + T::kStages * T::kStageBytes);
    values_at = pin(T::kValuesAt + (row_group * T::kBlocks * 4 + warp) * 1024 + lane * 16);
    scales_at = pin(T::kScalesAt + (row_group * T::kBlocks * 64 + warp * 16 + lane / 4) * 2);
    sx_at = pin(T::kSxAt + (token_group * T::kOwnTokens + lane % 4 * 2) * 4);
    tokens_at = token_group * T::kOwnTokens * kUnitChannels;
  }
  __device__ void next() {
    stage += T::kStageBytes, barrier += 8;
    if (stage == end) stage -= T::kStages * T::kStageBytes, barrier -= T::kStages * 8, parity ^= 1;
  }
  __device__ void wait() const { ptx::barrier_wait_at(barrier, parity); }
  __device__ uint64_t tokens() const { return wgmma::descriptor(stage + tokens_at); }
  /// Says that this warp is done with the stage whose `full` barrier this is.
  __device__ static void release(uint32_t barrier, int lane) {
    __syncwarp();
    if constexpr (T::kCluster == 1) {
      if (lane == 0) ptx::barrier_arrive_at(barrier + T::kStages * 8);
    } else {
      if (lane < T::kCluster) arrive_remote_at(barrier + T::kStages * 8, lane);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    gemm_w4a4_large_kernel(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warpgroup = threadIdx.x / 128;
  const int rank = T::kCluster == 1 ? 0 : blockIdx.x % T::kCluster;
  if (threadIdx.x == 0) {
    uint64_t* barriers = reinterpret_cast<uint64_t*>(shared + T::kBarriersAt);
    for (int i = 0; i < T::kStages; ++i) {
      ptx::barrier_init(barriers + i, 1);
      ptx::barrier_init(barriers + T::kStages + i, T::kCluster * T::kWarpgroups * 4);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if constexpr (T::kCluster > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
  launch_dependents();

  const int row_clusters = (p.row_tiles + T::kCluster - 1) / T::kCluster;
  const int items = row_clusters * p.token_tiles;
  const int first_item = blockIdx.x / T::kCluster, item_step = gridDim.x / T::kCluster;
  const int units = p.groups + p.outlier_units;

  if (warpgroup == T::kWarpgroups) {
    if constexpr (T::kResize) shrink_registers<T::kProducerRegisters>();
    if (threadIdx.x == T::kWarpgroups * 128) {
      const Producer<T> producer{p, shared, rank, ptx::policy_evict_last(), ptx::policy_evict_first()};
      Ring<T::kStages> ring;
      // Weights do not depend on the kernel before this one, activations do.
      int ahead = min(units, T::kStages);
      if (first_item < items) {
        const Place place = place_of(first_item, row_clusters, p.token_tiles, p.super);
        for (int u = 0; u < ahead; ++u) producer.weights(u, place.row_tile * T::kCluster + rank, u);
      }
      wait_for_dependencies();
      bool reuse = false;
      for (int item = first_item; item < items; item += item_step) {
        const Place place = place_of(item, row_clusters, p.token_tiles, p.super);
        for (int u = 0; u < units; ++u, ring.next()) {
          if (ahead > 0) {
            --ahead;
          } else {
            if (reuse) ptx::barrier_wait(producer.empty(ring.slot), ring.parity ^ 1);
            producer.weights(ring.slot, place.row_tile * T::kCluster + rank, u);
          }
          producer.activations(ring.slot, place.token_tile, u);
          if (ring.slot == T::kStages - 1) reuse = true;
        }
      }
    }
  } else {
    if constexpr (T::kResize) grow_registers<T::kConsumerRegisters>();
    wait_for_dependencies();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row_group = warpgroup / T::kTokenGroups, token_group = warpgroup % T::kTokenGroups;
    Consumer<T> ring(ptx::shared_address(shared), row_group, token_group, warp, lane);
    for (int item = first_item; item < items; item += item_step) {
      float acc[T::kBlocks][T::kParts][T::kPart / 2] = {};
      int d[T::kOverlap ? 2 : 1][T::kPart / 2];
      uint32_t a[T::kOverlap ? 2 : 1][4][4];
      uint4 v0, v1;
      uint32_t h0, h1;  // fp16 bits of the scales of rows g and g + 8
      float2 s[T::kOverlap ? 2 : 1][T::kPart / 8];
      const auto fetch = [&](int block) {
        const uint32_t values = ring.stage + ring.values_at + block * 4096,
                       scales = ring.stage + ring.scales_at + block * 128;
        v0 = load_vector(values), v1 = load_vector(values + 512);
        h0 = load_half(scales), h1 = load_half(scales + 16);
      };
      const auto load_scales = [&](float2(&s)[T::kPart / 8], uint32_t sx) {
        if constexpr (T::kPrefetch) {
#pragma unroll
          for (int k = 0; k < T::kPart / 8; ++k) s[k] = load_floats(sx + k * 32);
        }
      };
      const auto add = [&](float(&acc)[T::kPart / 2], const int(&d)[T::kPart / 2], float2(&s)[T::kPart / 8],
                           uint32_t sx, float w0, float w1) {
#pragma unroll
        for (int k = 0; k < T::kPart / 8; ++k) {
          if constexpr (!T::kPrefetch) s[k] = load_floats(sx + k * 32);
          scale(&acc[4 * k], &d[4 * k], s[k], w0, w1);
        }
      };

      if (p.groups > 0) {
        ring.wait();
        fetch(0);
        if constexpr (T::kOverlap) load_scales(s[0], ring.stage + ring.sx_at);
      }
      if constexpr (!T::kOverlap) {
#pragma unroll 1
        for (int left = p.groups; left > 0; --left) {
          unpack(a[0], v0, v1);
          const float u0 = to_float(h0) * 0.0625f, u1 = to_float(h1) * 0.0625f;
          const uint32_t sx = ring.stage + ring.sx_at, barrier = ring.barrier;
          const uint64_t tokens = ring.tokens();
          ring.next();
#pragma unroll
          for (int part = 0; part < T::kParts; ++part) {
            multiply(d[0], a[0], tokens + part * 512);
            load_scales(s[0], sx + part * T::kPart * 4);
            if (part == T::kParts - 1 && left > 1) {
              ring.wait();
              fetch(0);
            }
            wgmma::wait<0>();
            claim(d[0]);
            add(acc[0][part], d[0], s[0], sx + part * T::kPart * 4, u0, u1);
          }
          Consumer<T>::release(barrier, lane);
        }
      } else if (p.groups > 0) {
        static_assert(T::kBlocks == 1);
        // Of the product under way when a step begins, which is the second half of the step before:
        uint32_t last_sx = 0, last_barrier = 0;
        float last_w0 = 0.0f, last_w1 = 0.0f;
        int left = p.groups;
        unpack(a[0], v0, v1);
        // kNow: the fragments of this group; the next group's are unpacked into the others before the step
        // ends, so that nothing stands between the products that start the next step.
        const auto step = [&]<int kNow, bool kFirst>() {
          const float u0 = to_float(h0) * 0.0625f, u1 = to_float(h1) * 0.0625f;
          const uint32_t sx = ring.stage + ring.sx_at, barrier = ring.barrier;
          const uint64_t tokens = ring.tokens();
          if constexpr (!kFirst) {
            wgmma::wait<0>();
            claim(d[1]);
          }
          multiply(d[0], a[kNow], tokens);
          if constexpr (!kFirst) {
            add(acc[0][1], d[1], s[1], last_sx, last_w0, last_w1);
            Consumer<T>::release(last_barrier, lane);
          }
          // Loads queue up behind products that have just been issued: so they come before.
          load_scales(s[1], sx + 256);
          ring.next();
          const bool more = --left > 0;
          if (more) {
            ring.wait();
            fetch(0);
          }
          multiply(d[1], a[kNow], tokens + 512);
          wgmma::wait<1>();
          claim(d[0]);
          add(acc[0][0], d[0], s[0], sx, u0, u1);
          last_sx = sx + 256, last_w0 = u0, last_w1 = u1, last_barrier = barrier;
          if (more) {
            load_scales(s[0], ring.stage + ring.sx_at);
            unpack(a[1 - kNow], v0, v1);
          }
        };
        step.template operator()<0, true>();
#pragma unroll 1
        while (left > 0) {
          step.template operator()<1, false>();
          if (left == 0) break;
          step.template operator()<0, false>();
        }
        wgmma::wait<0>();
        claim(d[1]);
        add(acc[0][1], d[1], s[1], last_sx, last_w0, last_w1);
        Consumer<T>::release(last_barrier, lane);
      }

      if (p.outlier_units > 0) {
        const Consumer<T> first = ring;
        for (int u = 0; u < p.outlier_units; ++u, ring.next()) ring.wait();
#pragma unroll
        for (int block = 0; block < T::kBlocks; ++block) {
          const uint32_t scales = first.stage + ring.scales_at + block * 128;
          const float w0 = to_float(load_half(scales)), w1 = to_float(load_half(scales + 16));
#pragma unroll
          for (int part = 0; part < T::kParts; ++part) {
#pragma unroll
            for (int i = 0; i < T::kPart / 2; ++i) d[0][i] = 0;
            Consumer<T> unit = first;
            uint64_t tokens = 0;
#pragma unroll 1
            for (int u = 0; u < p.outlier_units; ++u, unit.next()) {
              // Two units of 64 channels have one block of tokens.
              tokens = u % 2 == 0 ? unit.tokens() + part * 512 : tokens + 4;
              const uint32_t values = unit.stage + unit.values_at + block * 4096;
              v0 = load_vector(values), v1 = load_vector(values + 512);
              const uint32_t whole[2][4] = {{v0.x, v0.y, v0.z, v0.w}, {v1.x, v1.y, v1.z, v1.w}};
              wgmma::fence();
              wgmma::multiply(d[0], whole[0], tokens, 1);
              wgmma::multiply(d[0], whole[1], tokens + 2, 1);
              wgmma::commit();
              wgmma::wait<0>();
              claim(d[0]);
            }
            const uint32_t sx = first.stage + ring.sx_at + part * T::kPart * 4;
            load_scales(s[0], sx);
            add(acc[block][part], d[0], s[0], sx, w0, w1);
          }
        }
        Consumer<T> unit = first;
        for (int u = 0; u < p.outlier_units; ++u, unit.next()) Consumer<T>::release(unit.barrier, lane);
      }

      const Place place = place_of(item, row_clusters, p.token_tiles, p.super);
      const int row = (place.row_tile * T::kCluster + rank) * T::kRows + row_group * T::kBlocks * 64;
      float* staging = reinterpret_cast<float*>(shared + T::kStagingAt) + warpgroup * 32 * T::kPitch;
      constexpr int kPieces = T::kOwnTokens / 32;
#pragma unroll
      for (int piece = 0; piece < T::kBlocks * kPieces; ++piece) {
        const int block = piece / kPieces, i = piece % kPieces;
        ptx::named_barrier(1 + warpgroup, 128);
#pragma unroll
        for (int j = 0; j < 16; ++j)
          staging[(j / 4 * 8 + 2 * t + j % 2) * T::kPitch + warp * 16 + g + j % 4 / 2 * 8] =
              acc[block][i * 32 / T::kPart][i * 16 % (T::kPart / 2) + j];
        ptx::named_barrier(1 + warpgroup, 128);
        const int token = place.token_tile * T::kTokens + token_group * T::kOwnTokens + i * 32;
        const int thread = threadIdx.x % 128, from = row + block * 64;
        if (p.y_dtype == DType::f32) {
          store<float, T>(p, staging, thread, from, token);
        } else if (p.y_dtype == DType::f16) {
          store<__half, T>(p, staging, thread, from, token);
        } else {
          store<__nv_bfloat16, T>(p, staging, thread, from, token);
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
