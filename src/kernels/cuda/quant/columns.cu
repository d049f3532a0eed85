#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/runtime.h"
#include "tensor/half.h"

// Copies of rows and columns (CopyRows, GatherColumns).
//
// gather: w [n, k] in f32, f16 or bf16, out [n, k] float, row-major: a block takes a row, a thread every
// 256th column of the result. The order of columns is the same for all rows and moves few of them, so reads
// are nearly as contiguous as writes: bound by memory.

namespace atom::cuda::quant {
namespace {

constexpr int kThreads = 256;

template <DType type>
__device__ float element(const void* w, int64_t at) {
  if constexpr (type == DType::f32) {
    return static_cast<const float*>(w)[at];
  } else {
    const uint16_t bits = static_cast<const uint16_t*>(w)[at];
    return type == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

template <DType type>
__global__ void __launch_bounds__(kThreads) gather_columns_kernel(const GatherColumns op) {
  const int64_t row = blockIdx.x;
  float* out = op.out.data + row * op.out.stride;
  for (int64_t c = threadIdx.x; c < op.out.cols; c += kThreads) {
    const int64_t column = op.columns == nullptr ? c : op.columns[c];
    out[c] = element<type>(op.w, row * op.out.cols + column);
  }
}

}  // namespace

void copy_rows(const DeviceContext& context, const CopyRows& op) {
  if (op.out.rows == 0) return;
  const auto u = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
  ATOM_CUDA_CHECK(cudaMemcpy2DAsync(
      op.out.data, u(op.out.stride), op.x.data + op.first * op.x.stride, u(op.step * op.x.stride),
      u(op.out.cols), static_cast<size_t>(op.out.rows), cudaMemcpyDeviceToDevice, of(context).stream()));
}

void gather_columns(const DeviceContext& context, const GatherColumns& op) {
  require(is_float(op.dtype), "expected a float tensor, found {}", name_of(op.dtype));
  if (op.out.rows == 0) return;
  const auto kernel = op.dtype == DType::f32   ? gather_columns_kernel<DType::f32>
                      : op.dtype == DType::f16 ? gather_columns_kernel<DType::f16>
                                               : gather_columns_kernel<DType::bf16>;
  launch(kernel, dim3(static_cast<unsigned>(op.out.rows)), dim3(kThreads), 0, of(context).stream(),
         {.dependent = false}, op);
}

}  // namespace atom::cuda::quant
