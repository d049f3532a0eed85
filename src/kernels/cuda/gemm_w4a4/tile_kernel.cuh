#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_w4a4/tile.cuh"
#include "kernels/cuda/gemm_w4a4/tile_device.cuh"
#include "kernels/cuda/gemm_w4a4/tile_epilogue.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/wgmma.cuh"

/// gemm_w4a4_sm90: Y[tokens, n] = X · W^T, computed as Y^T = W · X^T so that the weights are the operand that
/// wgmma takes from registers. Layouts: kernels/cuda/layout.h; numerics: gemm_w4a4.h.
///
/// A persistent CTA computes tiles of kRows output channels by kTokens tokens. One thread loads, per unit of
/// channels, packed weights with their multipliers and another one the tokens' values into a ring of stages,
/// by bulk copies. Each consumer warpgroup owns 64 rows: it unpacks INT4 fragments times their multiplier, 32
/// channels at a time and two products ahead, and multiplies them by all tokens of the tile; wgmma adds up
/// all of K in int32, so that scaling is left to the epilogue. Outliers come first: their sums are multiplied
/// by the outlier multipliers, and the groups are added to that. Where tiles are few, a cluster of kSplits
/// CTAs shares one, a part of K each, or kTurns warpgroups take turns with the units of the same rows; then
/// they exchange their sums. See docs/kernels/gemm.md.
namespace atom::cuda::tiles {

/// Up to so many tokens the next kernel begins when all weights have been asked for, not at once: what it
/// fetches early is little then, and in their way.
constexpr int kLateTokens = 8;

/// The loading threads: one for weights, one for tokens, since the issue of a copy takes its time.
template <class T>
class Producer {
 public:
  __device__ Producer(const Arguments& p, uint8_t* shared)
      : p_(p), shared_(shared), full_(reinterpret_cast<uint64_t*>(shared + T::kBarriersAt)) {}

  __device__ void weights() const {
    const uint64_t policy = ptx::policy_evict_first();
    Slot slot;
    for (Jobs<T> jobs(p_); jobs; jobs.next()) {
      const Job job = *jobs;
#pragma unroll(T::kUnrolled)
      for (int i = job.begin; i < job.end; ++i, slot.next()) {
        acquire(slot);
        ptx::barrier_arrive_expect(full_ + slot.index, T::kWeightBytes);
        copy_weights(slot.index, job.place.row_tile * T::kRowGroups, job.unit(i), policy);
      }
    }
  }
  __device__ void tokens() const {
    const uint64_t policy = ptx::policy_evict_last();
    Slot slot;
    for (Jobs<T> jobs(p_); jobs; jobs.next()) {
      const Job job = *jobs;
      const int64_t token = static_cast<int64_t>(job.place.token_tile) * T::kTokens;
#pragma unroll(T::kUnrolled)
      for (int i = job.begin; i < job.end; ++i, slot.next()) {
        acquire(slot);
        ptx::barrier_arrive_expect(full_ + slot.index, T::kXBytes);
        ptx::bulk_load(shared_ + slot.index * T::kXBytes,
                       p_.x + (job.block(i) * p_.stride + token) * kUnitChannels, T::kXBytes,
                       full_ + slot.index, policy);
      }
    }
  }
  /// By a whole warp.
  __device__ void scales() const {
    const int lane = threadIdx.x % 32;
    uint64_t* const barriers = reinterpret_cast<uint64_t*>(shared_ + T::kScaleBarriersAt);
    int tile = 0;
    for (Jobs<T> jobs(p_); jobs; jobs.next(), ++tile) {
      ptx::barrier_wait(barriers + 2 + tile % 2, tile / 2 % 2 ^ 1);
      TokenScales<T>::load(p_, (*jobs).place.token_tile * T::kTokens,
                           ptx::shared_address(shared_ + T::kScalesAt + tile % 2 * T::kScaleBytes), lane);
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(barriers + tile % 2);
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
  /// `half`: the first one of the rows, in halves of a packed tile. Rows beyond the last tile repeat it
  /// (nothing of them is stored).
  __device__ void copy_weights(int slot, int half, int unit, uint64_t policy) const {
    const int last = p_.rows / kTileRows - 1;
    const auto place = [&](int i) {
      return p_.weight +
             (static_cast<int64_t>(min(i / 2, last)) * (p_.groups + p_.outlier_units) + unit) * kUnitBytes +
             i % 2 * kHalfUnitBytes;
    };
    uint8_t* const to = shared_ + T::kWeightsAt + slot * T::kWeightBytes;
    if constexpr (T::kRowGroups < 3) {
      ptx::bulk_load(to, place(half), T::kWeightBytes, full_ + slot, policy);
    } else {
      const int first = 2 - half % 2;  // halves of the first packed tile
      ptx::bulk_load(to, place(half), first * kHalfUnitBytes, full_ + slot, policy);
      ptx::bulk_load(to + first * kHalfUnitBytes, place(half + first), (3 - first) * kHalfUnitBytes,
                     full_ + slot, policy);
    }
  }

  const Arguments& p_;
  uint8_t* shared_;
  uint64_t* full_;  // [kStages], then the empty ones
};

/// A consumer warpgroup's walk over the ring. Addresses are kept in registers: left to itself, the compiler
/// computes them anew in every unit, on the critical path.
template <class T>
class Consumer {
 public:
  /// `turn` must be the same for the whole warp, as the compiler sees it: then what follows from it is in
  /// uniform registers.
  __device__ Consumer(uint32_t shared, int row_group, int turn, int warp, int lane)
      : tokens_(pin(low_word(shared + turn * T::kXBytes))),
        weights_(pin(shared + T::kWeightsAt + turn * T::kWeightBytes)),
        barrier_(pin(shared + T::kBarriersAt + turn * 8)),
        end_(pin(low_word(shared + T::kWeightsAt))),
        values_at_(pin(row_group * kHalfUnitBytes + warp * 1024 + lane * 16)),
        multipliers_at_(pin(row_group * kHalfUnitBytes + kHalfUnitValueBytes + warp * 16 + lane / 4 * 2)),
        lane_(lane) {}

  /// acc += of a unit of outliers, in half `half` of its block of tokens.
  template <int kSums>
  __device__ void outliers(int (&acc)[kSums], int half) {
    wait();
    const uint64_t tokens = with_low_word(tokens_) + half * 4;
    const uint4 v0 = load_vector(weights_ + values_at_), v1 = load_vector(weights_ + values_at_ + 512);
    const uint32_t a[2][4] = {{v0.x, v0.y, v0.z, v0.w}, {v1.x, v1.y, v1.z, v1.w}};
    wgmma::fence();
    wgmma::multiply(acc, a[0], tokens);
    wgmma::multiply(acc, a[1], tokens + 2);
    wgmma::commit();
    wgmma::wait<0>();
    claim(acc);
    release(barrier_);
    next();
  }

  /// acc += of `units` groups, 1 at least. Each unit's second half is loaded when the one before has been
  /// unpacked.
  template <int kSums>
  __device__ void groups(int (&acc)[kSums], int units) {
    uint32_t a[4][4];  // fragments of 32 channels each
    uint4 v0, v1;
    uint32_t k, last = 0;
    const auto load = [&] {
      wait();
      v0 = load_vector(weights_ + values_at_);
      k = load_16_bits(weights_ + multipliers_at_);  // of two rows
    };
    load();
    v1 = load_vector(weights_ + values_at_ + 512);
    Unpack<T::kUnsigned> unpack;
    unpack.set(k);
    unpack(a[0], v0.x, v0.y);
    unpack(a[1], v0.z, v0.w);
    const auto multiply = [&](const uint32_t(&of)[4], uint32_t tokens) {
      wgmma::fence();
      wgmma::multiply<T::kUnsigned>(acc, of, with_low_word(tokens));
      wgmma::commit();
      // All but the last two products are done, and their fragments free.
      wgmma::wait<2>();
    };
    // Up to 64 tokens as soon as registers are free, so that nobody waits for what is loaded; more tokens
    // give the time for that, and products come first.
    const auto advance = [&](int left) {
      next();
      if (left > 1) load();
    };
#pragma unroll 1
    for (int left = units; left > 0; --left) {
      const uint32_t tokens = tokens_;
      const uint32_t barrier = barrier_;
      multiply(a[0], tokens);
      if constexpr (T::kFew) advance(left);
      unpack(a[2], v1.x, v1.y);
      multiply(a[1], tokens + 2);
      if (left < units) release(last);
      last = barrier;
      unpack(a[3], v1.z, v1.w);
      if constexpr (!T::kFew) advance(left);
      // Behind the last unit, what follows is of no use and no harm; what it loads may be half written.
      v1 = load_vector(weights_ + values_at_ + 512);
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
  __device__ void next() {
    tokens_ += T::kTurns * T::kXBytes / 16, weights_ += T::kTurns * T::kWeightBytes,
        barrier_ += T::kTurns * 8;
    if (tokens_ >= end_) {
      tokens_ -= T::kStages * T::kXBytes / 16, weights_ -= T::kStages * T::kWeightBytes;
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

  // tokens_ and end_ are low words of descriptors, whose unit is 16 bytes.
  uint32_t tokens_, weights_, barrier_, parity_ = 0, end_;
  uint32_t values_at_, multipliers_at_;
  int lane_;
};

/// The outliers' sums, times the outlier multipliers of their rows and tokens.
template <class T, int kSums>
__device__ __forceinline__ void scale_outliers(int (&acc)[kSums], const Output& out, float2 rows) {
  const auto row0 = static_cast<uint32_t>(rows.x), row1 = static_cast<uint32_t>(rows.y);
#pragma unroll
  for (int k = 0; k < kSums / 4; ++k) {
    const uint32_t s = TokenScales<T>::multipliers(out.scales, k * 8 + out.lane % 4 * 2);
    const uint32_t s0 = s * row0, s1 = s * row1;
    acc[4 * k] *= static_cast<int>(s0 & 0xFFFF), acc[4 * k + 1] *= static_cast<int>(s0 >> 16);
    acc[4 * k + 2] *= static_cast<int>(s1 & 0xFFFF), acc[4 * k + 3] *= static_cast<int>(s1 >> 16);
  }
}

/// What others send to this CTA for those of its warpgroups who finish something.
template <class T>
__device__ __forceinline__ uint32_t sum_bytes() {
  const int first = static_cast<int>(ptx::cluster_rank()) * T::kTurns;
  const int finishers = max(min(T::kFinishers - first, T::kTurns), 0);
  return static_cast<uint32_t>(finishers * (T::kParts - 1) * T::kPartBytes);
}

/// Adds up the sums that several warpgroups have of the same outputs, in a CTA or a cluster; each of the
/// first kFinishers finishes as many tokens. What others finish is sent to their shared memory, and counted
/// there by a barrier: cluster-wide ones would wait for all memory.
template <class T>
__device__ __forceinline__ void exchange(const Arguments& p, Output out, float2 rows,
                                         const int (&acc)[T::kTokens / 2], uint32_t shared, int row_group,
                                         int turn) {
  constexpr int kOwn = T::kOwnTokens / 8;  // quads
  const int rank = T::kSplits > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  const int part = rank * T::kTurns + turn;
  // [turn][kParts - 1][quad][row group][thread]
  const uint32_t mine = shared + T::kSumsAt + (row_group * 128 + out.thread()) * 16;
  const auto place = [&](int to, int from) {
    return mine + (to % T::kTurns * (T::kParts - 1) + (from < to ? from : from - 1)) * T::kPartBytes;
  };
  constexpr int kQuadBytes = T::kRowGroups * 128 * 16;
  int sums[kOwn * 4] = {};
  if constexpr (T::kSplits > 1) ptx::cluster_wait();  // all of the cluster have their barriers
#pragma unroll
  for (int f = 0; f < T::kFinishers; ++f) {
    if (f == part) {
#pragma unroll
      for (int i = 0; i < kOwn * 4; ++i) sums[i] = acc[f * kOwn * 4 + i];
      continue;
    }
    const auto of_cta = [&](uint32_t address) {
      return ptx::map_shared(address, static_cast<uint32_t>(f / T::kTurns));
    };
    const uint32_t to = T::kSplits > 1 ? of_cta(place(f, part)) : place(f, part);
    const uint32_t barrier = T::kSplits > 1 ? of_cta(shared + T::kSumBarrierAt) : 0;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int* const s = acc + (f * kOwn + k) * 4;
      const int4 quad = {s[0], s[1], s[2], s[3]};
      if constexpr (T::kSplits > 1) {
        ptx::store_cluster(to + k * kQuadBytes, quad, barrier);
      } else {
        store_vector(to + k * kQuadBytes, quad);
      }
    }
  }
  static_assert(T::kSplits > 1 || T::kFinishers == T::kParts);  // all are at the named barrier below
  if (part >= T::kFinishers) return;
  out.token += part * T::kOwnTokens;
  out.token_in_tile = part * T::kOwnTokens;
  const Finisher<T, kOwn * 4> finisher(p, out);
  if constexpr (T::kSplits == 1) {
    ptx::named_barrier(1 + row_group, T::kTurns * 128);
  } else {
    ptx::barrier_wait_at(shared + T::kSumBarrierAt, 0);
  }
#pragma unroll
  for (int from = 0; from < T::kParts - 1; ++from) {
    const uint32_t at = mine + (turn * (T::kParts - 1) + from) * T::kPartBytes;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const uint4 v = load_vector(at + k * kQuadBytes);
      sums[4 * k] += static_cast<int>(v.x), sums[4 * k + 1] += static_cast<int>(v.y);
      sums[4 * k + 2] += static_cast<int>(v.z), sums[4 * k + 3] += static_cast<int>(v.w);
    }
  }
  finish<T>(p, out, rows, sums, finisher);
}

/// Exactly kRegisters a thread at launch, since warpgroups divide them anew: less would let them wait for
/// ever.
template <class T>
__global__ void __launch_bounds__(T::kThreads) __maxnreg__(T::kRegisters)
    gemm_w4a4_kernel(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    uint64_t* barriers = reinterpret_cast<uint64_t*>(shared + T::kBarriersAt);
    for (int i = 0; i < T::kStages; ++i) {
      ptx::barrier_init(barriers + i, 2);
      ptx::barrier_init(barriers + T::kStages + i, T::kRowGroups * 4);
    }
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(barriers + 2 * T::kStages + i, 1);
      ptx::barrier_init(barriers + 2 * T::kStages + 2 + i, T::kWarpgroups * 4);
    }
    if constexpr (T::kSplits > 1) {
      uint64_t* const sums = reinterpret_cast<uint64_t*>(shared + T::kSumBarrierAt);
      ptx::barrier_init(sums, 1);
      ptx::barrier_arrive_expect(sums, sum_bytes<T>());
    }
    ptx::fence_barrier_init();
  }
  if constexpr (T::kSplits > 1) {
    __syncwarp();
    ptx::cluster_arrive_relaxed();
  }
  __syncthreads();
  const bool begins_early = p.tokens > kLateTokens;
  if (begins_early) launch_dependents();

  if (warpgroup == T::kWarpgroups) {
    shrink_registers<T::kProducerRegisters>();
    const Producer<T> producer(p, shared);
    // Weights do not depend on the kernel before this one, activations do.
    if (threadIdx.x == T::kConsumers) {
      producer.weights();
      if (!begins_early) launch_dependents();
    } else if (threadIdx.x == T::kConsumers + 32) {
      wait_for_dependencies();
      producer.tokens();
    } else if (threadIdx.x / 32 == T::kConsumers / 32 + 2) {
      wait_for_dependencies();
      producer.scales();
    }
  } else {
    grow_registers<T::kConsumerRegisters>();
    wait_for_dependencies();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int row_group = warpgroup % T::kRowGroups;
    const int turn = T::kTurns == 1 ? 0 : __shfl_sync(0xFFFFFFFFu, warpgroup / T::kRowGroups, 0);
    const uint32_t address = ptx::shared_address(shared);
    Consumer<T> ring(address, row_group, turn, warp, lane);
    int tile = 0;
    for (Jobs<T> jobs(p); jobs; jobs.next(), ++tile) {
      const Job job = *jobs;
      const Output out{warp,
                       lane,
                       job.place.row_tile * T::kRows + row_group * kHalfTileRows,
                       job.place.token_tile * T::kTokens,
                       0,
                       address + T::kScalesAt + tile % 2 * T::kScaleBytes,
                       address + T::kBuffersAt + (warpgroup * 4 + warp) * T::kBufferBytes};
      const RowScales rows(p, out);
      int acc[T::kTokens / 2];
#pragma unroll
      for (int i = 0; i < T::kTokens / 2; ++i) acc[i] = 0;
      int unit = job.begin + turn;
      if (unit < job.outliers_end()) {
#pragma unroll 1
        for (; unit < job.outliers_end(); unit += T::kTurns) ring.outliers(acc, unit % 2);
      }
      const uint32_t scales_ready = address + T::kScaleBarriersAt + tile % 2 * 8;
      ptx::barrier_wait_at(scales_ready, tile / 2 % 2);
      // Of no outliers, too: behind a condition, ptxas would wait for every product.
      scale_outliers<T>(acc, out, rows.multipliers);
      if (unit < job.end) ring.groups(acc, (job.end - unit + T::kTurns - 1) / T::kTurns);
      if constexpr (T::kParts > 1) {
        if (job.shared) {
          exchange<T>(p, out, rows.units, acc, address, row_group, turn);
          break;
        }
      }
      if constexpr (T::kTurns == 1) {
        finish<T>(p, out, rows.units, acc, Finisher<T, T::kTokens / 2>(p, out));
        __syncwarp();
        if (lane == 0) ptx::barrier_arrive_at(scales_ready + 16);
      }
    }
  }
}

}  // namespace atom::cuda::tiles
