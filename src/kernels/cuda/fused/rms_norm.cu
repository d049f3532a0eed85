// RMSNorm. x [tokens, stride] f32, f16 or bf16, weight [k] f32 -> out [tokens, stride], y = (x * factor) *
// weight. A block a token: the row goes to shared memory as it is, one warp walks the 16 chains of the sum of
// squares (the contract's order), all write. Four elements a thread where rows are aligned, else one.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

struct Norm {
  const void* x;
  int64_t stride;
  int k;
  const float* weight;
  float eps;
  void* out;
  int64_t out_stride;
};

template <class In, class Out, bool kVector>
__global__ void __launch_bounds__(1024) rms_norm_kernel(const Norm a) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float shared_factor;
  auto* row = reinterpret_cast<In*>(shared);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const In* x = static_cast<const In*>(a.x) + int64_t{blockIdx.x} * a.stride;
  Out* out = static_cast<Out*>(a.out) + int64_t{blockIdx.x} * a.out_stride;
  launch_dependents();
  wait_for_dependencies();

  if constexpr (kVector) {
    constexpr int kPer = 16 / sizeof(In);
    for (int i = kPer * thread; i < a.k; i += kPer * threads) {
      *reinterpret_cast<uint4*>(row + i) = *reinterpret_cast<const uint4*>(x + i);
    }
  } else {
    for (int i = thread; i < a.k; i += threads) row[i] = x[i];
  }
  __syncthreads();
  if (thread < 32) {
    const float sum = sum_of_squares(row, a.k);
    if (thread == 0) shared_factor = numerics::inverse_rms(sum, a.k, a.eps);
  }
  __syncthreads();
  const float factor = shared_factor;
  if constexpr (kVector) {
    for (int i = 4 * thread; i < a.k; i += 4 * threads) {
      Four y = load4(row + i);
      const Four w = load4(a.weight + i);
      for (int j = 0; j < 4; ++j) y.v[j] = (y.v[j] * factor) * w.v[j];
      store4(out + i, y);
    }
  } else {
    for (int i = thread; i < a.k; i += threads) out[i] = narrow<Out>((widen(row[i]) * factor) * a.weight[i]);
  }
}

}  // namespace

void rms_norm(const RmsNormArgs& args, cudaStream_t stream) {
  const ConstMatrix& x = args.x;
  expect(x.rows == args.out.rows && x.cols == args.out.cols, "rms_norm: shapes differ");
  if (x.rows == 0) return;
  const Norm a{x.data,   x.stride,      static_cast<int>(x.cols), args.weight,
               args.eps, args.out.data, args.out.stride};
  const bool vector = x.cols % 8 == 0 && is_aligned(x.data, x.stride, x.dtype) &&
                      is_aligned(args.out.data, args.out.stride, args.out.dtype) &&
                      is_aligned(args.weight, 0, DType::f32);
  const int64_t wanted = (x.cols + 127) / 128 * 32;
  const int threads = static_cast<int>(std::min<int64_t>(wanted, x.rows <= 264 ? 1024 : 256));
  const size_t shared = static_cast<size_t>(x.cols) * size_of(x.dtype);
  with_types(x.dtype, args.out.dtype, [&](auto in, auto out) {
    using In = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    launch(vector ? rms_norm_kernel<In, Out, true> : rms_norm_kernel<In, Out, false>,
           dim3(static_cast<unsigned>(x.rows)), threads, shared, stream, {}, a);
  });
}

}  // namespace atom::cuda
