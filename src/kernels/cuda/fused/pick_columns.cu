#include "kernels/cuda/fused/pick_columns.h"
#include "kernels/cuda/runtime.h"

// PickColumns: out[t] = x[t, columns[t]], one thread a token.

namespace atom::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    pick_columns_kernel(const float* x, int64_t stride, int64_t tokens, const int32_t* columns, float* out) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (t < tokens) out[t] = x[t * stride + columns[t]];
}

}  // namespace

void pick_columns(const PickColumns& op, cudaStream_t stream) {
  const auto tokens = static_cast<int64_t>(op.columns.size());
  if (tokens == 0) return;
  launch(pick_columns_kernel, dim3(static_cast<unsigned>((tokens + kThreads - 1) / kThreads)), dim3(kThreads),
         0, stream, {}, op.x.data, op.x.stride, tokens, op.columns.data(), op.out.data());
}

}  // namespace atom::cuda
