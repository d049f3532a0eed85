// What follows a projection in some families: x [tokens, stride] += bias [cols], a block a token; and RMSNorm
// of every head by itself, in place, half a warp a head: its 16 lanes carry the 16 chains of the sum of
// squares (the contract's order), then each normalizes its channels. Bandwidth only; heads are short, so the
// second read hits the L1 cache.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 256;
constexpr int kHeadThreads = 16;
constexpr int kHeadsPerBlock = kThreads / kHeadThreads;

__global__ void __launch_bounds__(kThreads) add_bias_kernel(const AddBiasArgs a) {
  launch_dependents();
  wait_for_dependencies();
  float* x = static_cast<float*>(a.x.data) + int64_t{blockIdx.x} * a.x.stride;
  for (int64_t i = threadIdx.x; i < a.x.cols; i += kThreads) x[i] += a.bias[i];
}

__global__ void __launch_bounds__(kThreads) head_norm_kernel(const HeadNormArgs a) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t heads = a.x.cols / a.head_dim;
  const int64_t item = int64_t{blockIdx.x} * kHeadsPerBlock + threadIdx.x / kHeadThreads;
  // The warp stays together: beyond the last head the first one is read again.
  const bool exists = item < a.x.rows * heads;
  const int64_t at = exists ? item : 0;
  float* x = static_cast<float*>(a.x.data) + at / heads * a.x.stride + at % heads * a.head_dim;
  const int n = static_cast<int>(a.head_dim);
  const float factor = numerics::inverse_rms(sum_of_squares(x, n), n, a.eps);
  if (!exists) return;
  for (int i = static_cast<int>(threadIdx.x) % kHeadThreads; i < n; i += kHeadThreads) {
    x[i] = (x[i] * factor) * a.weight[i];
  }
}

}  // namespace

void add_bias(const AddBiasArgs& args, cudaStream_t stream) {
  expect(args.x.dtype == DType::f32, "add_bias: expected f32");
  if (args.x.rows == 0) return;
  launch(add_bias_kernel, dim3(static_cast<unsigned>(args.x.rows)), kThreads, 0, stream, {}, args);
}

void head_norm(const HeadNormArgs& args, cudaStream_t stream) {
  expect(args.x.dtype == DType::f32 && args.head_dim > 0 && args.x.cols % args.head_dim == 0,
         "head_norm: expected f32 and whole heads");
  const int64_t items = args.x.rows * (args.x.cols / args.head_dim);
  if (items == 0) return;
  launch(head_norm_kernel, dim3(blocks_for(items, kHeadsPerBlock)), kThreads, 0, stream, {}, args);
}

}  // namespace atom::cuda
