#include <algorithm>

#include "kernels/cuda/fused/random_fill.h"
#include "kernels/cuda/runtime.h"
#include "kernels/random_value.h"

// RandomFill: element i is a function of seed and i alone (kernels/random_value.h), in a grid-stride loop.

namespace atom::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 1024;

__global__ void __launch_bounds__(kThreads) random_fill_kernel(const RandomFill op) {
  wait_for_dependencies();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < op.count; i += step) {
    put_random_value(op, i);
  }
}

}  // namespace

void random_fill(const RandomFill& op, cudaStream_t stream) {
  if (op.count == 0) return;
  const int64_t blocks = std::min(kBlocks, (op.count + kThreads - 1) / kThreads);
  launch(random_fill_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, {}, op);
}

}  // namespace atom::cuda
