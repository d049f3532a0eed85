#pragma once

#include <cstdint>
#include <cuda_fp16.h>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

/// What the GEMM with evenly divided units does beside the instructions of wgmma.cuh and ptx.cuh.
namespace atom::cuda {

using ptx::load_floats, ptx::load_vector, ptx::pin, wgmma::claim;

/// Keeps the compiler from computing fragments, or reading sums, elsewhere than before, or behind, this
/// point: from wgmma::multiply() to the wgmma::wait() that covers it they belong to the tensor cores, as sums
/// do (wgmma::claim()).
template <int kSteps>
__device__ __forceinline__ void keep(uint32_t (&a)[kSteps][4]) {
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
    asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

/// wgmma::descriptor() of a tile, of its low word.
__device__ __forceinline__ uint64_t with_low_word(uint32_t low) {
  return wgmma::descriptor(0) >> 32 << 32 | low;
}

/// An FP16 of shared memory.
__device__ __forceinline__ float load_half(uint32_t address) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(ptx::load_half(address))));
}

/// Sees what was written before the value that it reads.
__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

/// Stores a piece of Y by a warp: 16 rows of W, from `row` on, and 8 tokens, from m0 + `token` on, of which
/// the lane has rows g and g + 8, tokens 2 t and 2 t + 1. Lanes of neighbouring rows exchange a token, so
/// that each has pairs of rows.
template <typename Y>
class Store {
 public:
  template <typename Arguments>
  __device__ __forceinline__ Store(const Arguments& p, int m0, int lane)
      : y_(static_cast<Y*>(p.y)),
        stride_(p.y_stride),
        n_(p.n),
        tokens_(p.tokens),
        odd_(lane / 4 % 2),
        row_(lane / 4 - odd_),
        token_(m0 + lane % 4 * 2 + odd_),
        accumulate_(p.accumulate) {}

  __device__ __forceinline__ void operator()(const float4& v, int row, int token) const {
    const float low = __shfl_xor_sync(0xFFFFFFFFu, odd_ ? v.x : v.y, 4);
    const float high = __shfl_xor_sync(0xFFFFFFFFu, odd_ ? v.z : v.w, 4);
    row += row_, token += token_;
    if (token >= tokens_) return;
    Y* const to = y_ + token * stride_ + row;
    if (row < n_)
      store_pair(to, odd_ ? make_float2(low, v.y) : make_float2(v.x, low), row + 1 < n_, accumulate_);
    if (row + 8 < n_)
      store_pair(to + 8, odd_ ? make_float2(high, v.w) : make_float2(v.z, high), row + 9 < n_, accumulate_);
  }

 private:
  Y* y_;
  int64_t stride_;
  int n_, tokens_, odd_, row_, token_;
  bool accumulate_;
};

}  // namespace atom::cuda
