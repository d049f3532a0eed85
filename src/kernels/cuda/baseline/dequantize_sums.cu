// Dequantizes the sums of an s8 product: y[m, n] = fma(float(sums[m, n]), x_scale[m] * w_scale[n], 0) (+ y),
// the contract's operations. sums [m, n] s32, x_scale [m], w_scale [n] f32, y f32, f16 or bf16. One thread
// computes four neighbours of a row (one at a time where n or the strides do not allow it); limited by
// memory: 4 bytes read and 2 or 4 written a value. The second half of the W8A8 baseline, as cuBLASLt writes
// plain sums only. Source: docs/numerics.md.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/error.h"
#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::baseline {
namespace {

constexpr int kThreads = 256;

__device__ float to_float(float x) {
  return x;
}
__device__ float to_float(__half x) {
  return __half2float(x);
}
__device__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ void store(float& to, float x) {
  to = x;
}
__device__ void store(__half& to, float x) {
  to = __float2half_rn(x);
}
__device__ void store(__nv_bfloat16& to, float x) {
  to = __float2bfloat16_rn(x);
}

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};

template <class T, int kWidth, bool kAccumulate>
__global__ void __launch_bounds__(kThreads) dequantize(const DequantizeSumsArgs a) {
  launch_dependents();
  const int64_t row = blockIdx.y;
  const int64_t column = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (column >= a.n) return;
  T* out = static_cast<T*>(a.y) + row * a.y_stride + column;
  const int32_t* in = a.sums + row * a.sums_stride + column;
  wait_for_dependencies();
  const float sx = a.x_scale[row];
  const auto value = [&](int32_t sum, float sw) { return fmaf(static_cast<float>(sum), sx * sw, 0.0f); };
  if constexpr (kWidth == 4) {
    const int4 s = *reinterpret_cast<const int4*>(in);
    const float4 w = *reinterpret_cast<const float4*>(a.w_scale + column);
    const float v[4] = {value(s.x, w.x), value(s.y, w.y), value(s.z, w.z), value(s.w, w.w)};
    Four<T> result = {};
    if constexpr (kAccumulate) result = *reinterpret_cast<const Four<T>*>(out);
#pragma unroll
    for (int i = 0; i < 4; ++i) store(result.at[i], kAccumulate ? to_float(result.at[i]) + v[i] : v[i]);
    *reinterpret_cast<Four<T>*>(out) = result;
  } else {
    const float v = value(*in, a.w_scale[column]);
    store(*out, kAccumulate ? to_float(*out) + v : v);
  }
}

template <class T>
void launch_as(const DequantizeSumsArgs& a, cudaStream_t stream) {
  const auto unaligned = [](const void* p, size_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  const bool single = a.n % 4 != 0 || a.y_stride % 4 != 0 || a.sums_stride % 4 != 0 ||
                      unaligned(a.sums, 16) || unaligned(a.w_scale, 16) || unaligned(a.y, 4 * sizeof(T));
  const int64_t per_block = kThreads * (single ? 1 : 4);
  const dim3 grid(static_cast<unsigned>((a.n + per_block - 1) / per_block), static_cast<unsigned>(a.m));
  const auto kernel = single ? (a.accumulate ? dequantize<T, 1, true> : dequantize<T, 1, false>)
                             : (a.accumulate ? dequantize<T, 4, true> : dequantize<T, 4, false>);
  launch(kernel, grid, kThreads, 0, stream, {}, a);
}

}  // namespace

void dequantize_sums(DequantizeSumsArgs args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return;
  require(args.m <= 65535, "dequantize_sums: at most 65535 tokens are allowed, found {}", args.m);
  if (args.sums_stride == 0) args.sums_stride = args.n;
  if (args.y_stride == 0) args.y_stride = args.n;
  switch (args.result) {
    case ResultType::f32:
      return launch_as<float>(args, stream);
    case ResultType::f16:
      return launch_as<__half>(args, stream);
    case ResultType::bf16:
      return launch_as<__nv_bfloat16>(args, stream);
    case ResultType::s32:
      fail("dequantize_sums: the result is f32, f16 or bf16");
  }
}

}  // namespace atom::cuda::baseline
