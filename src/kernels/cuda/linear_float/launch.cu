#include "kernels/cuda/linear_float/kernel.cuh"
#include "kernels/cuda/linear_float/linear_float.h"

namespace atom::cuda {
namespace {

/// Up to this many tokens the weights are what takes the time.
constexpr int64_t kFewTokens = 8;

template <class W>
void launch_for(const LinearFloatProblem& p, cudaStream_t stream) {
  const auto blocks = [](int64_t count, int64_t size) {
    return static_cast<unsigned>((count + size - 1) / size);
  };
  if (p.m <= kFewTokens) {
    launch(linear_float_kernel<W, kFewTokens, 64, kFewTokens, 1, 32>, dim3(blocks(p.n, 64), 1), dim3(64), 0,
           stream, {}, p);
  } else {
    launch(linear_float_kernel<W, 64, 64, 4, 4, 32>, dim3(blocks(p.n, 64), blocks(p.m, 64)), dim3(256), 0,
           stream, {}, p);
  }
}

}  // namespace

void linear_float_exact(const LinearFloat& op, cudaStream_t stream) {
  if (op.x.rows == 0 || op.y.cols == 0) return;
  const MatrixView<const float> x = op.x.floats();
  const LinearFloatProblem p{x.data, op.w,     op.y.data,   x.rows,       op.y.cols,
                             x.cols, x.stride, op.y.stride, op.accumulate};
  switch (op.dtype) {
    case DType::f32:
      return launch_for<float>(p, stream);
    case DType::f16:
      return launch_for<__half>(p, stream);
    case DType::bf16:
      return launch_for<__nv_bfloat16>(p, stream);
    default:
      fail("LinearFloat: weights of type {}", name_of(op.dtype));
  }
}

}  // namespace atom::cuda
