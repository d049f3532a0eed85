#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"

namespace atom::cuda {

/// Throws atom::Error for what gemm_w4a4.h does not allow.
void check_gemm(const GemmW4A4& gemm);

/// Calls f.operator()<Y>() with the C++ type of the output.
template <class F>
void with_output_type(DType type, F&& f) {
  if (type == DType::f16) return f.template operator()<__half>();
  if (type == DType::bf16) return f.template operator()<__nv_bfloat16>();
  f.template operator()<float>();
}

}  // namespace atom::cuda
