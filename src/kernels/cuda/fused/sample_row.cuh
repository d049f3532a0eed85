#pragma once

#include <cstdint>

#include "kernels/cuda/fused/block.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/sampling.h"

/// A row of logits as the blocks of a cluster see it (sample.cu): its chunks, sums over the block and over
/// the cluster, sorting.
namespace atom::cuda::sample_row {

inline constexpr int kThreads = 1024;
inline constexpr int kWarps = kThreads / 32;
/// Consecutive logits that a warp takes at a time.
inline constexpr int kChunk = 256;
inline constexpr int kPerLane = kChunk / 32;
static_assert(kChunk <= kThreads);
/// Intervals of logits that are counted, and those of them that a thread looks at.
inline constexpr int kBins = 2048;
inline constexpr int kBinsPerThread = kBins / kThreads;
/// Tokens that the block can sort: one a thread.
inline constexpr int kListSize = kThreads;

/// The last token of a beginning of the order, and the weight of that beginning.
struct Last {
  float logit;
  uint32_t id;
  uint64_t weight;

  /// Whether a token belongs to the beginning.
  __device__ bool includes(float other, uint32_t other_id) const {
    return other > logit || (other == logit && other_id <= id);
  }
};

struct Shared {
  uint64_t sums[kWarps];
  /// What the other blocks of the cluster read.
  float2 extremes;
  uint64_t total, above, drawn;
  uint64_t bisected[2];
  uint32_t listed;
  alignas(16) uint32_t counts[kBins + 1];
  uint64_t list[kListSize];
  /// What they do not.
  uint64_t exchanged[2][kThreads];
  uint64_t found_key, found_weight;
  int first_bin, last_bin;
  uint32_t count_above;
  int chunk;
  uint64_t rest;
};

__device__ inline uint32_t cluster_size() {
  uint32_t n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
__device__ inline void cluster_sync() {
  ptx::cluster_arrive();
  ptx::cluster_wait();
}

/// An object in shared memory, as block `rank` of the cluster has it.
template <class T>
__device__ const T& of_block(const T& object, uint32_t rank) {
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(&object), "r"(rank));
  return *reinterpret_cast<const T*>(address);
}

/// The object of block number lane of the cluster, `other` in lanes beyond it.
template <class T>
__device__ T of_lane(const T& object, T other) {
  const uint32_t lane = threadIdx.x % 32;
  return lane < cluster_size() ? of_block(object, lane) : other;
}

__device__ inline uint64_t warp_sum(uint64_t value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

/// The sum over the blocks of the cluster, behind a barrier.
__device__ inline uint64_t cluster_sum(const uint64_t& object) {
  return warp_sum(of_lane(object, uint64_t{0}));
}

template <class T>
struct Scan {
  T before;
  T with;
  T total;
};

/// The sum over the lanes up to this one.
template <class T>
__device__ T warp_scan(T value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = __shfl_up_sync(~0u, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

/// Integer sums over the threads before this one, up to this one, and of all; `shared` [kWarps].
template <class T>
__device__ Scan<T> block_scan(T value, T* shared) {
  static_assert(kWarps == 32);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const T sum = warp_scan(value);
  __syncthreads();
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  const T own = shared[lane];
  const T warps = warp_scan(own);
  const T with = __shfl_sync(~0u, warps - own, warp) + sum;
  return {with - value, with, __shfl_sync(~0u, warps, 31)};
}

/// The sum over all threads.
__device__ inline uint64_t block_sum(uint64_t value, uint64_t* shared) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(shared[threadIdx.x % 32]);
}

/// Sorts the keys of all threads, ascending, of which those from thread n on are kNoKey (bitonic). Only the
/// warps that have others take part.
__device__ inline uint64_t sorted(uint64_t key, int n, uint64_t (&exchanged)[2][kThreads]) {
  const int tid = static_cast<int>(threadIdx.x);
  int padded = 32;
  while (padded < n) padded *= 2;
  if (tid >= padded) return key;
  int parity = 0;
  for (int size = 2; size <= padded; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      uint64_t other;
      if (stride < 32) {
        other = __shfl_xor_sync(~0u, key, stride);
      } else {
        exchanged[parity][tid] = key;
        ptx::named_barrier(1, padded);
        other = exchanged[parity][tid ^ stride];
        parity ^= 1;
      }
      const bool takes_less = ((tid & stride) == 0) == ((tid & size) == 0);
      key = takes_less == (other < key) ? other : key;
    }
  }
  return key;
}

/// The logits of a row and how they are read.
struct Row {
  const float* x;
  int vocab;
  /// The block's chunks.
  int first_chunk, end_chunk;
  float largest, inverse_temperature, least_relative;
  /// Bins for a unit of exponents.
  float bin_scale;

  /// -infinity instead of NaN and infinities.
  __device__ float drawable(float logit) const { return logit <= largest ? logit : -INFINITY; }

  /// What e is raised to for the relative probability of a drawable logit.
  __device__ float exponent(float logit) const { return (logit - largest) * inverse_temperature; }
  /// Larger exponents have smaller places, or the same; a bin is the places from one whole number to the
  /// next. Below kBins for tokens that may have a weight.
  __device__ float place(float exponent) const { return -exponent * bin_scale; }

  /// A lane's logits of a chunk, NaN beyond the end.
  __device__ void load(int chunk, float (&logits)[kPerLane]) const {
    const int id = chunk * kChunk + static_cast<int>(threadIdx.x % 32);
    if ((chunk + 1) * kChunk <= vocab) {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) logits[j] = x[id + 32 * j];
    } else {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) logits[j] = id + 32 * j < vocab ? x[id + 32 * j] : NAN;
    }
  }

  /// visit(chunk, logits, id) for the chunks of this warp, the logits as they are, the j-th of token id + 32
  /// * j. Loads run a chunk ahead.
  template <class Visit>
  __device__ void for_each_chunk_as_is(const Visit& visit) const {
    int chunk = first_chunk + static_cast<int>(threadIdx.x / 32);
    float ahead[kPerLane];
    if (chunk < end_chunk) load(chunk, ahead);
#pragma unroll 1
    for (; chunk < end_chunk; chunk += kWarps) {
      float logits[kPerLane];
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) logits[j] = ahead[j];
      if (chunk + kWarps < end_chunk) load(chunk + kWarps, ahead);
      visit(chunk, logits, static_cast<uint32_t>(chunk * kChunk) + threadIdx.x % 32);
    }
  }

  /// The same of drawable logits.
  template <class Visit>
  __device__ void for_each_chunk(const Visit& visit) const {
    for_each_chunk_as_is([&](int chunk, float(&logits)[kPerLane], uint32_t id) {
#pragma unroll
      for (float& logit : logits) logit = drawable(logit);
      visit(chunk, logits, id);
    });
  }
};

/// A logit, but for the sign of a zero, from its best_key().
__device__ inline float logit_of(uint64_t key) {
  const uint32_t ascending = ~static_cast<uint32_t>(key >> 32);
  return __uint_as_float((ascending & 0x80000000u) != 0 ? ascending & 0x7FFFFFFFu : ~ascending);
}
__device__ inline uint32_t id_of(uint64_t key) {
  return static_cast<uint32_t>(key);
}

}  // namespace atom::cuda::sample_row
