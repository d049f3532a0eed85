#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

/// Outputs of the GEMM kernels in float, f16 and bf16.
namespace atom::cuda {

template <typename Y>
__device__ __forceinline__ float to_float(Y value) {
  return static_cast<float>(value);
}

template <typename Y>
__device__ __forceinline__ Y from_float(float value) {
  if constexpr (std::is_same_v<Y, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<Y, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

template <typename Y>
__device__ __forceinline__ void store_one(Y* to, float value, bool accumulate) {
  *to = from_float<Y>(accumulate ? to_float(*to) + value : value);
}

}  // namespace atom::cuda
