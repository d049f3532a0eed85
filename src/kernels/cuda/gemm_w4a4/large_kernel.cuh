#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_w4a4/large_device.cuh"
#include "kernels/cuda/gemm_w4a4/large_epilogue.cuh"
#include "kernels/cuda/gemm_w4a4/large_tile.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/wgmma.cuh"

/// gemm_w4a4_sm90 for many tokens: Y[tokens, n] = X · W^T, computed as Y^T = W · X^T so that the weights are
/// the operand that wgmma takes from registers. Layouts: kernels/cuda/layout.h; numerics: gemm_w4a4.h.
///
/// A persistent CTA computes tiles of kRows output channels by kTokens tokens. One thread loads, per unit of
/// channels, packed weights with their multipliers and the tokens' values into a ring of stages, by bulk
/// copies. Each consumer warpgroup owns 64 rows: it unpacks INT4 fragments times their multiplier, 32
/// channels at a time and two products ahead, and multiplies them by all tokens of the tile; wgmma adds up
/// all of K in int32, so that scaling is left to the epilogue. Outliers come first: their sums are multiplied
/// by the outlier multipliers, and the groups are added to that. Where tiles are few, a cluster of kSplits
/// CTAs shares one, a part of K each, and exchanges the sums. See docs/kernels/gemm_large.md.
namespace atom::cuda::large {

/// The loading threads: one for weights, one for tokens, since the issue of a copy takes its time.
template <class T>
class Producer {
 public:
  __device__ Producer(const Arguments& p, uint8_t* shared)
      : p_(p),
        units_{p.groups, p.outlier_units},
        shared_(shared),
        full_(reinterpret_cast<uint64_t*>(shared + T::kBarriersAt)) {}

  /// Units [begin, end) of the tiles that are this CTA's.
  __device__ void weights(int first_item, int items, int step, int begin, int end) const {
    const uint64_t policy = ptx::policy_evict_first();
    Slot slot;
    for (int item = first_item; item < items; item += step) {
      const int half = place_of(item, p_).row_tile * T::kWarpgroups;
      for (int i = begin; i < end; ++i, slot.next()) {
        acquire(slot);
        ptx::barrier_arrive_expect(full_ + slot.index, bytes_of(half));
        copy_weights(slot.index, half, units_.unit(i), policy);
      }
    }
  }
  __device__ void tokens(int first_item, int items, int step, int begin, int end) const {
    const uint64_t policy = ptx::policy_evict_last();
    Slot slot;
    for (int item = first_item; item < items; item += step) {
      const int64_t token = static_cast<int64_t>(place_of(item, p_).token_tile) * T::kTokens;
      for (int i = begin; i < end; ++i, slot.next()) {
        acquire(slot);
        if (!units_.brings_tokens(i)) {
          ptx::barrier_arrive(full_ + slot.index);
          continue;
        }
        ptx::barrier_arrive_expect(full_ + slot.index, T::kXBytes);
        ptx::bulk_load(shared_ + slot.index * T::kXBytes,
                       p_.x + (units_.block(i) * p_.stride + token) * kUnitChannels, T::kXBytes,
                       full_ + slot.index, policy);
      }
    }
  }

 private:
  struct Slot {
    int index = 0;
    uint32_t parity = 1;
    __device__ void next() {
      if (++index == T::kStages) index = 0, parity ^= 1;
    }
  };

  /// Waits until consumers are done with the slot; the first time round, that is at once.
  __device__ void acquire(const Slot& slot) const {
    ptx::barrier_wait(full_ + T::kStages + slot.index, slot.parity);
  }
  static __device__ int bytes_of(int half) {
    if constexpr (T::kWarpgroups == 2) return kUnitBytes;
    return kUnitBytes + kUnitValueBytes / 2 + (half % 2 == 0 ? 64 : kTileRows);
  }
  /// `half`: the first one of the rows, in halves of a packed tile. Rows beyond the last tile repeat it
  /// (nothing of them is stored).
  __device__ void copy_weights(int slot, int half, int unit, uint64_t policy) const {
    const int last = p_.rows / kTileRows - 1;
    const auto tile = [&](int i) {
      return p_.weight + (static_cast<int64_t>(min(i, last)) * units_.count() + unit) * kUnitBytes;
    };
    uint8_t* const to = shared_ + T::kWeightsAt + slot * T::kWeightBytes;
    constexpr int kHalf = kUnitValueBytes / 2;
    if (T::kWarpgroups == 2) {
      ptx::bulk_load(to, tile(half / 2), kUnitBytes, full_ + slot, policy);
    } else if (half % 2 == 0) {
      ptx::bulk_load(to, tile(half / 2), kUnitBytes, full_ + slot, policy);
      ptx::bulk_load(to + kUnitBytes, tile(half / 2 + 1), kHalf, full_ + slot, policy);
      ptx::bulk_load(to + kUnitBytes + kHalf, tile(half / 2 + 1) + kUnitValueBytes, 64, full_ + slot, policy);
    } else {
      ptx::bulk_load(to, tile(half / 2) + kHalf, kHalfUnitBytes, full_ + slot, policy);
      ptx::bulk_load(to + kHalfUnitBytes, tile(half / 2 + 1), kUnitBytes, full_ + slot, policy);
    }
  }

  const Arguments& p_;
  Units units_;
  uint8_t* shared_;
  uint64_t* full_;  // [kStages], then the empty ones
};

/// A consumer warpgroup's walk over the ring. Addresses are kept in registers: left to itself, the compiler
/// computes them anew in every unit, on the critical path.
template <class T>
class Consumer {
 public:
  __device__ Consumer(uint32_t shared, int warp, int lane)
      : tokens_(pin(shared)),
        weights_(pin(shared + T::kWeightsAt)),
        barrier_(pin(shared + T::kBarriersAt)),
        end_(pin(shared + T::kWeightsAt)),
        warp_(warp),
        lane_(lane) {}

  /// Before units of a tile.
  __device__ void begin(const WeightPlace& place) {
    values_at_ = pin(place.values + warp_ * 1024 + lane_ * 16);
    multipliers_at_ = pin(place.multipliers + warp_ * 16 + lane_ / 4 * 2);
  }

  /// acc += of `units` units of outliers.
  template <int kSums>
  __device__ void outliers(int (&acc)[kSums], int units) {
#pragma unroll 1
    for (int u = 0; u < units; u += 2) {
      wait();
      const uint32_t first = barrier_;
      const uint64_t tokens = wgmma::descriptor(tokens_);
      multiply_bytes(acc, tokens);
      next();
      if (u + 1 < units) {
        wait();
        multiply_bytes(acc, tokens + 4);
        wgmma::wait<0>();
        claim(acc);
        release(barrier_);
        next();
      }
      wgmma::wait<0>();
      claim(acc);
      release(first);
    }
  }

  /// acc += of `units` groups.
  template <int kSums>
  __device__ void groups(int (&acc)[kSums], int units) {
    uint32_t a[4][4];  // fragments of 32 channels each
    uint4 v0, v1;
    uint32_t k, last = 0;
    const auto load = [&] {
      wait();
      v0 = load_vector(weights_ + values_at_), v1 = load_vector(weights_ + values_at_ + 512);
      k = load_16_bits(weights_ + multipliers_at_);  // of two rows
    };
    load();
    Unpack unpack;
    unpack.set(k);
    unpack(a[0], v0.x, v0.y);
    unpack(a[1], v0.z, v0.w);
    const auto multiply = [&](const uint32_t(&of)[4], uint32_t tokens) {
      wgmma::fence();
      wgmma::multiply(acc, of, with_low_word(tokens), 1);
      wgmma::commit();
      // All but the last two products are done, and their fragments free.
      wgmma::wait<2>();
    };
#pragma unroll 1
    for (int left = units; left > 0; --left) {
      const uint32_t tokens = static_cast<uint32_t>(wgmma::descriptor(tokens_));
      const uint32_t barrier = barrier_;
      multiply(a[0], tokens);
      unpack(a[2], v1.x, v1.y);
      multiply(a[1], tokens + 2);
      if (left < units) release(last);
      last = barrier;
      unpack(a[3], v1.z, v1.w);
      next();
      if (left > 1) load();
      // Behind the last unit, what follows is of no use and no harm.
      multiply(a[2], tokens + 4);
      unpack.set(k);
      unpack(a[0], v0.x, v0.y);
      multiply(a[3], tokens + 6);
      unpack(a[1], v0.z, v0.w);
    }
    wgmma::wait<0>();
    claim(acc);
    release(last);
  }

 private:
  template <int kSums>
  __device__ void multiply_bytes(int (&acc)[kSums], uint64_t tokens) {
    const uint4 v0 = load_vector(weights_ + values_at_), v1 = load_vector(weights_ + values_at_ + 512);
    const uint32_t a[2][4] = {{v0.x, v0.y, v0.z, v0.w}, {v1.x, v1.y, v1.z, v1.w}};
    wgmma::fence();
    wgmma::multiply(acc, a[0], tokens, 1);
    wgmma::multiply(acc, a[1], tokens + 2, 1);
    wgmma::commit();
  }
  __device__ void next() {
    tokens_ += T::kXBytes, weights_ += T::kWeightBytes, barrier_ += 8;
    if (tokens_ == end_) {
      tokens_ -= T::kStages * T::kXBytes, weights_ -= T::kStages * T::kWeightBytes;
      barrier_ -= T::kStages * 8, parity_ ^= 1;
    }
  }
  __device__ void wait() const {
    ptx::barrier_wait_at(barrier_, parity_);
  }
  /// Says that this warp is done with the stage whose `full` barrier this is.
  __device__ void release(uint32_t barrier) const {
    __syncwarp();
    if (lane_ == 0) ptx::barrier_arrive_at(barrier + T::kStages * 8);
  }

  uint32_t tokens_, weights_, barrier_, parity_ = 0, end_;
  uint32_t values_at_ = 0, multipliers_at_ = 0;
  int warp_, lane_;
};

/// The outliers' sums, times the outlier multipliers of their rows and tokens.
template <int kSums>
__device__ __forceinline__ void scale_outliers(int (&acc)[kSums], const Output& out, uint2 rows) {
  const uint32_t tokens = out.scales + 2 * kSums * 4 + out.lane % 4 * 4;
#pragma unroll
  for (int k = 0; k < kSums / 4; ++k) {
    // Of two tokens, 16 bits each.
    const uint32_t s = load_word(tokens + k * 16), s0 = s * rows.x, s1 = s * rows.y;
    acc[4 * k] *= static_cast<int>(s0 & 0xFFFF), acc[4 * k + 1] *= static_cast<int>(s0 >> 16);
    acc[4 * k + 2] *= static_cast<int>(s1 & 0xFFFF), acc[4 * k + 3] *= static_cast<int>(s1 >> 16);
  }
}

/// Adds up the sums of the CTAs of a cluster, each of which finishes as many tokens of the tile.
template <class T>
__device__ __forceinline__ void exchange(const Arguments& p, Output out, float2 rows,
                                         const int (&acc)[T::kTokens / 2], uint32_t shared) {
  constexpr int kQuads = T::kTokens / 8, kOwn = kQuads / T::kFinishers;
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const uint32_t mine = shared + threadIdx.x * 16;
  ptx::named_barrier(15, T::kConsumers);  // nobody reads the ring any more
#pragma unroll
  for (int k = 0; k < kQuads; ++k)
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(mine + k * T::kConsumers * 16),
                 "r"(acc[4 * k]), "r"(acc[4 * k + 1]), "r"(acc[4 * k + 2]), "r"(acc[4 * k + 3])
                 : "memory");
  ptx::cluster_arrive();
  ptx::cluster_wait();
  if (rank >= T::kFinishers) {
    ptx::cluster_arrive();
    return;
  }
  int sums[kOwn * 4] = {};
#pragma unroll
  for (int r = 0; r < T::kSplits; ++r) {
    const uint32_t from = ptx::map_shared(mine + rank * kOwn * T::kConsumers * 16, r);
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int4 v = load_cluster_vector(from + k * T::kConsumers * 16);
      sums[4 * k] += v.x, sums[4 * k + 1] += v.y, sums[4 * k + 2] += v.z, sums[4 * k + 3] += v.w;
    }
  }
  ptx::cluster_arrive();
  out.token += rank * (kOwn * 8);
  out.scales += rank * (kOwn * 8) * 4;
  finish<T>(p, out, rows, sums);
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    gemm_w4a4_large_kernel(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    uint64_t* barriers = reinterpret_cast<uint64_t*>(shared + T::kBarriersAt);
    for (int i = 0; i < T::kStages; ++i) {
      ptx::barrier_init(barriers + i, 2);
      ptx::barrier_init(barriers + T::kStages + i, T::kWarpgroups * 4);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  launch_dependents();

  // A cluster has one tile, a CTA without one as many as it takes.
  const int items = p.row_tiles * p.token_tiles;
  const int first_item = blockIdx.x / T::kSplits, step = T::kSplits == 1 ? gridDim.x : items;
  const int part = blockIdx.x % T::kSplits;
  const Units units{p.groups, p.outlier_units};
  const int begin = units.part(part, T::kSplits), end = units.part(part + 1, T::kSplits);

  if (warpgroup == T::kWarpgroups) {
    shrink_registers<T::kProducerRegisters>();
    const Producer<T> producer(p, shared);
    // Weights do not depend on the kernel before this one, activations do.
    if (threadIdx.x == T::kConsumers) {
      producer.weights(first_item, items, step, begin, end);
    } else if (threadIdx.x == T::kConsumers + 32) {
      wait_for_dependencies();
      producer.tokens(first_item, items, step, begin, end);
    }
    if constexpr (T::kSplits > 1) {
      __syncwarp();
      ptx::cluster_arrive();
      ptx::cluster_wait();
      ptx::cluster_arrive();
    }
  } else {
    grow_registers<T::kConsumerRegisters>();
    wait_for_dependencies();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t address = ptx::shared_address(shared);
    Consumer<T> ring(address, warp, lane);
    for (int item = first_item; item < items; item += step) {
      const Place place = place_of(item, p);
      const uint32_t own = address + T::kOwnAt + warpgroup * T::kOwnBytes;
      const Output out{warpgroup,
                       warp,
                       lane,
                       place.row_tile * T::kRows + warpgroup * 64,
                       place.token_tile * T::kTokens,
                       own,
                       own + T::kScaleBytes + warp * T::kBufferBytes};
      Scales<T> scales(p, out);
      ring.begin(WeightPlace::of(T::kWarpgroups, warpgroup, place.row_tile * T::kWarpgroups % 2 != 0));
      int acc[T::kTokens / 2];
#pragma unroll
      for (int i = 0; i < T::kTokens / 2; ++i) acc[i] = 0;
      const int of_outliers = min(end, p.outlier_units) - begin;
      if (of_outliers > 0) ring.outliers(acc, of_outliers);
      scales.share(out);
      if (of_outliers > 0) scale_outliers(acc, out, scales.row_multipliers());
      const int of_groups = end - max(begin, p.outlier_units);
      if (of_groups > 0) ring.groups(acc, of_groups);
      if constexpr (T::kSplits == 1) {
        finish<T>(p, out, scales.row_units(), acc);
      } else {
        exchange<T>(p, out, scales.row_units(), acc, address);
      }
    }
  }
  // Nobody leaves while its sums may still be read.
  if constexpr (T::kSplits > 1) ptx::cluster_wait();
}

}  // namespace atom::cuda::large
