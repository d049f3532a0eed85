// Dequantizes the sums of an s8 product: y[m, n] = (float(sums[m, n]) * x_scale[m]) * w_scale[n] (+ y).
// sums [m, n] s32 dense; x_scale [m], w_scale [n] f32; y f32, f16 or bf16, rows y_stride apart. One thread
// computes four neighbours of a row (one at a time where n or the strides do not allow it); limited by
// memory: 4 bytes read and 2 or 4 written a value. The second half of the W8A8 baseline, as cuBLASLt writes
// plain sums only.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string>

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
__global__ void dequantize(const int32_t* sums, int64_t n, const float* x_scale, const float* w_scale, T* y,
                           int64_t y_stride) {
  const int64_t row = blockIdx.y;
  const int64_t column = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (column >= n) return;
  const float sx = x_scale[row];
  T* out = y + row * y_stride + column;
  const int32_t* in = sums + row * n + column;
  const auto value = [&](int32_t sum, float sw) { return static_cast<float>(sum) * sx * sw; };
  if constexpr (kWidth == 4) {
    const int4 s = *reinterpret_cast<const int4*>(in);
    const float4 w = *reinterpret_cast<const float4*>(w_scale + column);
    const float v[4] = {value(s.x, w.x), value(s.y, w.y), value(s.z, w.z), value(s.w, w.w)};
    Four<T> result = {};
    if constexpr (kAccumulate) result = *reinterpret_cast<const Four<T>*>(out);
#pragma unroll
    for (int i = 0; i < 4; ++i) store(result.at[i], kAccumulate ? v[i] + to_float(result.at[i]) : v[i]);
    *reinterpret_cast<Four<T>*>(out) = result;
  } else {
    const float v = value(*in, w_scale[column]);
    store(*out, kAccumulate ? v + to_float(*out) : v);
  }
}

template <class T>
void launch(const int32_t* sums, int64_t m, int64_t n, const float* x_scale, const float* w_scale, void* y,
            int64_t y_stride, bool accumulate, cudaStream_t stream) {
  const auto unaligned = [](const void* p, size_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes != 0;
  };
  const bool single = n % 4 != 0 || y_stride % 4 != 0 || unaligned(sums, 16) || unaligned(w_scale, 16) ||
                      unaligned(y, 4 * sizeof(T));
  const int64_t per_block = kThreads * (single ? 1 : 4);
  const dim3 grid(static_cast<unsigned>((n + per_block - 1) / per_block), static_cast<unsigned>(m));
  const auto kernel = single ? (accumulate ? dequantize<T, 1, true> : dequantize<T, 1, false>)
                             : (accumulate ? dequantize<T, 4, true> : dequantize<T, 4, false>);
  kernel<<<grid, kThreads, 0, stream>>>(sums, n, x_scale, w_scale, static_cast<T*>(y), y_stride);
  ATOM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void dequantize_sums(const int32_t* sums, int64_t m, int64_t n, const float* x_scale, const float* w_scale,
                     ResultType result, void* y, int64_t y_stride, bool accumulate, cudaStream_t stream) {
  if (m == 0 || n == 0) return;
  if (m > 65535) throw Error("dequantize_sums: at most 65535 tokens are allowed, found " + std::to_string(m));
  const int64_t stride = y_stride != 0 ? y_stride : n;
  switch (result) {
    case ResultType::f32:
      return launch<float>(sums, m, n, x_scale, w_scale, y, stride, accumulate, stream);
    case ResultType::f16:
      return launch<__half>(sums, m, n, x_scale, w_scale, y, stride, accumulate, stream);
    case ResultType::bf16:
      return launch<__nv_bfloat16>(sums, m, n, x_scale, w_scale, y, stride, accumulate, stream);
    case ResultType::s32:
      throw Error("dequantize_sums: the result is f32, f16 or bf16");
  }
}

}  // namespace atom::cuda::baseline
