#pragma once

#include <cstdint>

/// Reductions of a block of kRowThreads threads, or of as many warps as said.
namespace atom::cuda::fused {

inline constexpr int kRowThreads = 1024;
inline constexpr int kRowWarps = kRowThreads / 32;

/// The block's least value; `shared` [warps, a power of two] is free again at the next barrier after the one
/// inside.
template <int warps = kRowWarps, class T>
__device__ T block_min(T value, T* shared) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(~0u, value, distance);
    value = other < value ? other : value;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[threadIdx.x % warps];
  for (int distance = 16; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(~0u, value, distance);
    value = other < value ? other : value;
  }
  return value;
}

/// Order-preserving bits of a candidate for the largest value with the smallest index: least is best.
__device__ inline uint64_t best_key(float value, uint32_t index) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | index;
}
inline constexpr uint64_t kNoKey = ~uint64_t{0};

}  // namespace atom::cuda::fused
