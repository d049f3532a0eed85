// LogSumExp over logits [rows, vocab] f32, a block a row: the maximum, then the 16 interleaved sums of every
// block of 1,024 logits, a chain of 64 terms a thread, then one thread adds them up in double in ascending
// order: numerics::sum_of_exp to the bit.

#include "kernels/cuda/fused/block.cuh"
#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

__global__ void __launch_bounds__(kRowThreads)
    log_sum_exp_kernel(const float* logits, int64_t vocab, int64_t stride, double* out) {
  extern __shared__ float sums[];
  __shared__ float shared[kRowWarps];
  launch_dependents();
  wait_for_dependencies();
  const float* x = logits + blockIdx.x * stride;
  float least = INFINITY;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < vocab; i += kRowThreads) least = fminf(least, -x[i]);
  const float largest = -block_min(least, shared);
  const int64_t chains = (vocab + numerics::kExpBlock - 1) / numerics::kExpBlock * 16;
  for (int64_t chain = threadIdx.x; chain < chains; chain += kRowThreads) {
    const int64_t begin = chain / 16 * numerics::kExpBlock;
    const int64_t end = min(begin + numerics::kExpBlock, vocab);
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t i = begin + chain % 16; i < end; i += 16) sum += numerics::exp_term(x[i] - largest);
    sums[chain] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0.0;
#pragma unroll 16
  for (int64_t chain = 0; chain < chains; ++chain) total += static_cast<double>(sums[chain]);
  out[blockIdx.x] = numerics::log_sum_exp(largest, total);
}

}  // namespace

void log_sum_exp(const LogSumExpArgs& args, cudaStream_t stream) {
  const ConstMatrix& x = args.x;
  expect(x.dtype == DType::f32 && x.cols > 0, "log_sum_exp: logits are f32");
  if (x.rows == 0) return;
  const int64_t chains = (x.cols + numerics::kExpBlock - 1) / numerics::kExpBlock * 16;
  launch(log_sum_exp_kernel, dim3(static_cast<unsigned>(x.rows)), kRowThreads,
         static_cast<size_t>(chains) * sizeof(float), stream, {}, static_cast<const float*>(x.data), x.cols,
         x.stride, args.out);
}

}  // namespace atom::cuda
