#pragma once

#include <cstdint>

#include "kernels/cuda/fused/block.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/sampling.h"

/// A row of logits as the blocks of a cluster see it (sample.cu): its chunks, sums over the block and over
/// the cluster, sorting.
namespace atom::cuda::sample_row {

inline constexpr uint32_t kMaxCluster = 8;
inline constexpr int kThreads = 512;
inline constexpr int kWarps = kThreads / 32;
/// Consecutive logits that a warp takes at a time.
inline constexpr int kChunk = 256;
inline constexpr int kPerLane = kChunk / 32;
static_assert(kChunk <= kThreads);
/// Intervals of logits that are counted, and those of them that a thread looks at.
inline constexpr int kBins = 2048;
inline constexpr int kBinsPerThread = kBins / kThreads;
/// Tokens that the block can sort.
inline constexpr int kListSize = 2048;

struct Shared {
  uint64_t sums[kWarps];
  double upper[kWarps], lower[kWarps];
  /// What the other blocks of the cluster read.
  float2 extremes;
  uint64_t total, above, drawn;
  uint64_t bisected[2];
  uint32_t listed;
  alignas(16) uint32_t counts[kBins];
  uint64_t list[kListSize];
  /// What they do not.
  uint64_t merged[kListSize];
  uint64_t found_key, found_weight;
  int first_bin, last_bin;
  uint64_t count_above;
  int64_t chunk;
  uint64_t rest;
};

__device__ inline uint32_t cluster_size() {
  uint32_t n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
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

/// use(object, rank) for all blocks of the cluster, behind a barrier; the loads are under way together.
template <class T, class Use>
__device__ void for_each_block(const T& object, const Use& use) {
  const uint32_t size = cluster_size();
  T objects[kMaxCluster];
#pragma unroll
  for (uint32_t rank = 0; rank < kMaxCluster; ++rank) {
    if (rank < size) objects[rank] = of_block(object, rank);
  }
#pragma unroll
  for (uint32_t rank = 0; rank < kMaxCluster; ++rank) {
    if (rank < size) use(objects[rank], rank);
  }
}

/// The sum over the blocks of the cluster, behind a barrier.
__device__ inline uint64_t cluster_sum(const uint64_t& object) {
  uint64_t sum = 0;
  for_each_block(object, [&](uint64_t part, uint32_t) { sum += part; });
  return sum;
}

template <class T>
struct Scan {
  T before;
  T with;
  T total;
};

/// Sums over the threads before this one, up to this one, and of all; `shared` [kWarps].
template <class T>
__device__ Scan<T> block_scan(T value, T* shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  T sum = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += other;
  }
  __syncthreads();
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  T before{}, total{};
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += shared[w];
  }
  return {before + sum - value, before + sum, total};
}

/// Ascending, in place, by all threads; n at most kListSize. The entries up to the next power of two become
/// kNoKey.
__device__ inline void bitonic_sort(uint64_t* keys, int n) {
  const int tid = static_cast<int>(threadIdx.x);
  int padded = 64;
  while (padded < n) padded *= 2;
  for (int i = n + tid; i < padded; i += kThreads) keys[i] = fused::kNoKey;
  __syncthreads();
  for (int size = 2; size <= padded; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int i = tid; i < padded / 2; i += kThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const uint64_t a = keys[low], b = keys[high];
        if ((a > b) == ((low & size) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      // Up to a stride of 32 the 32 pairs of a warp are its own 64 keys.
      const int next = stride > 1 ? stride / 2 : size;
      if (stride > 32 || next > 32) {
        __syncthreads();
      } else {
        __syncwarp();
      }
    }
  }
  __syncthreads();
}

/// The logits of a row and how they are read.
struct Row {
  const float* x;
  int64_t vocab;
  /// The block's chunks.
  int64_t first_chunk, end_chunk;
  float largest, inverse_temperature, least_relative;
  /// Bins for a unit of logits.
  float bin_scale;

  /// -infinity instead of NaN and infinities.
  __device__ float drawable(float logit) const { return logit <= largest ? logit : -INFINITY; }

  /// Of drawable logits, as the following: whether it may have a weight.
  __device__ bool is_possible(float logit) const {
    return (logit - largest) * inverse_temperature >= sampling::kFaintest;
  }
  __device__ float relative(float logit) const {
    return sampling::relative_probability(logit, largest, inverse_temperature);
  }
  /// Larger logits have smaller places, or the same; a bin is the places from one whole number to the next,
  /// the last one all that follow.
  __device__ float place(float logit) const { return (largest - logit) * bin_scale; }

  /// A lane's logits of a chunk, NaN beyond the end.
  __device__ void load(int64_t chunk, float (&logits)[kPerLane]) const {
    const int64_t id = chunk * kChunk + threadIdx.x % 32;
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
    int64_t chunk = first_chunk + threadIdx.x / 32;
    float ahead[kPerLane];
    if (chunk < end_chunk) load(chunk, ahead);
    for (; chunk < end_chunk; chunk += kWarps) {
      float logits[kPerLane];
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) logits[j] = ahead[j];
      if (chunk + kWarps < end_chunk) load(chunk + kWarps, ahead);
      visit(chunk, logits, static_cast<uint32_t>(chunk * kChunk + threadIdx.x % 32));
    }
  }

  /// The same of drawable logits.
  template <class Visit>
  __device__ void for_each_chunk(const Visit& visit) const {
    for_each_chunk_as_is([&](int64_t chunk, float(&logits)[kPerLane], uint32_t id) {
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

__device__ inline uint64_t warp_sum(uint64_t value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

}  // namespace atom::cuda::sample_row
