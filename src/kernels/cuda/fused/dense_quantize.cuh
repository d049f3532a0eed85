#pragma once

// (RMSNorm or SiLU * up +) quantization of layers whose channels are all bytes (is_dense8(): W8A8 and FP8): x
// [tokens, stride] (or gate and up, [tokens, 2 * k]) f32, f16 or bf16 -> values [tokens, out_stride] in rows,
// scales [tokens]. INT8: scale = fp16(max |x| / 127) of the token; FP8 (E4M3): the scale is given. A block a
// token, four channels a thread at a time; the row stays in shared memory as float between the passes, in
// which a thread meets its own channels again, but for the norm's sum of squares (one warp walks the 16
// chains of the contract). Source: Xiao et al. 2023, "SmoothQuant", section 3; docs/numerics.md.

#include <algorithm>

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/general_quantize.cuh"

namespace atom::cuda::fused {

struct DenseQuantize {
  const void* x;
  int64_t stride;
  const float* weight;
  float eps;
  int k;
  int out_stride;
  float scale;
  int8_t* values;
  float* scales;
};

template <class In, Before before, bool kFloat8>
__global__ void __launch_bounds__(1024) dense_quantize_kernel(const DenseQuantize a) {
  extern __shared__ __align__(16) float row[];
  __shared__ float shared_factor;
  __shared__ float largest_of_warp[32];
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t token = blockIdx.x;
  launch_dependents();
  wait_for_dependencies();

  const In* x = static_cast<const In*>(a.x) + token * a.stride;
  const auto for_each_four = [&](const auto& body) {
    for (int i = 4 * thread; i < a.k; i += 4 * threads) body(i);
  };
  float largest = 0.0f;
  const auto keep = [&](int i, const Four& y) {
    store4(row + i, y);
    for (const float v : y.v) largest = numerics::max_magnitude(largest, v);
  };
  if constexpr (before == Before::rms_norm) {
    for_each_four([&](int i) { store4(row + i, load4(x + i)); });
    __syncthreads();
    if (thread < 32) {
      const float sum = sum_of_squares(row, a.k);
      if (thread == 0) shared_factor = numerics::inverse_rms(sum, a.k, a.eps);
    }
    __syncthreads();
    const float factor = shared_factor;
    for_each_four([&](int i) {
      Four y = load4(row + i);
      const Four w = load4(a.weight + i);
      for (int j = 0; j < 4; ++j) y.v[j] = (y.v[j] * factor) * w.v[j];
      keep(i, y);
    });
  } else {
    for_each_four([&](int i) {
      Four y = load4(x + i);
      if constexpr (before == Before::silu_mul) {
        const Four up = load4(x + a.k + i);
        for (int j = 0; j < 4; ++j) y.v[j] = numerics::silu(y.v[j]) * up.v[j];
      }
      keep(i, y);
    });
  }

  float scale = a.scale;
  if constexpr (!kFloat8) {
    largest = warp_max(largest);
    if (thread % 32 == 0) largest_of_warp[thread / 32] = largest;
    __syncthreads();
    for (int w = 0; w < threads / 32; ++w) largest = fmaxf(largest, largest_of_warp[w]);
    scale = numerics::symmetric_scale(largest, 1.0f, 127.0f);
  }
  const float inverse = numerics::inverse_scale(scale);
  int8_t* values = a.values + token * a.out_stride;
  for_each_four([&](int i) {
    const Four y = load4(row + i);
    uint32_t q[4];
    for (int j = 0; j < 4; ++j) {
      q[j] = kFloat8 ? numerics::quantize_float8(y.v[j], inverse)
                     : quantize_bits(y.v[j], inverse, -127.0f, 127.0f);
    }
    *reinterpret_cast<uint32_t*>(values + i) = low_bytes(q[0], q[1], q[2], q[3]);
  });
  for (int i = a.k + 4 * thread; i < a.out_stride; i += 4 * threads) {
    *reinterpret_cast<uint32_t*>(values + i) = 0;
  }
  if (thread == 0) a.scales[token] = scale;
}

/// Whether that kernel takes it: rows that can be read 16 bytes at a time, in the order in which they are.
inline bool takes_dense(const ConstMatrix& x, const float* weight, const int32_t* permutation,
                        const QuantizedOutput& out) {
  return out.form == ActivationForm::rows && is_dense8(out.spec.layout) && !out.spec.layout.integer_scales &&
         permutation == nullptr && is_aligned(x.data, x.stride, x.dtype) &&
         is_aligned(weight, 0, DType::f32) && is_aligned(out.values, 0, DType::i8);
}

template <class In, Before before>
void dense_quantize(const ConstMatrix& x, const float* weight, float eps, const QuantizedOutput& out,
                    cudaStream_t stream) {
  const int64_t k = out.spec.layout.k;
  const DenseQuantize a{
      x.data,         x.stride,   weight,    eps, static_cast<int>(k), static_cast<int>(out.row_stride()),
      out.spec.scale, out.values, out.scales};
  // Few tokens: the shortest time for one. Many: blocks that share a multiprocessor hide each other's waits.
  const int64_t most = x.rows <= 264 ? 1024 : 256;
  const auto threads = static_cast<unsigned>(std::min<int64_t>((k / 4 + 31) / 32 * 32, most));
  const auto kernel = out.spec.layout.outlier_type == OutlierType::fp8
                          ? dense_quantize_kernel<In, before, true>
                          : dense_quantize_kernel<In, before, false>;
  launch(kernel, dim3(static_cast<unsigned>(x.rows)), threads, static_cast<size_t>(k) * sizeof(float), stream,
         {}, a);
}

}  // namespace atom::cuda::fused
