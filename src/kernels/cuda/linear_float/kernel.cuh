#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/runtime.h"

// LinearFloat, exact. y [m, n] = x [m, k] * w [n, k]^T (+ y), x and y float, w float, fp16 or bf16,
// row-major.
//
// Every output is one chain acc = fma(x[m, i], w[n, i], acc) over ascending i, so that results equal the
// CPU's to the bit; parallel are the outputs alone. A block computes kTokens x kRows outputs, every thread
// kThreadTokens x kThreadRows of them in registers, from chunks of kChunk channels that all threads bring to
// shared memory, transposed. Small m uses few tokens a block and one row a thread, so that many blocks stream
// the weights.
namespace atom::cuda {

struct LinearFloatProblem {
  const float* x;
  const void* w;
  float* y;
  int64_t m, n, k;
  int64_t x_stride, y_stride;
  bool accumulate;
};

__device__ __forceinline__ float widen(float v) {
  return v;
}
__device__ __forceinline__ float widen(__half v) {
  return __half2float(v);
}
__device__ __forceinline__ float widen(__nv_bfloat16 v) {
  return __bfloat162float(v);
}

template <class W, int kTokens, int kRows, int kThreadTokens, int kThreadRows, int kChunk>
__global__ void __launch_bounds__(kTokens / kThreadTokens * kRows / kThreadRows)
    linear_float_kernel(const LinearFloatProblem p) {
  constexpr int kAcross = kRows / kThreadRows;
  constexpr int kThreads = kTokens / kThreadTokens * kAcross;
  __shared__ float xs[kChunk][kTokens + 1];
  __shared__ float ws[kChunk][kRows + 1];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * kTokens;
  const W* w = static_cast<const W*>(p.w);
  // Interleaved, so that neighbouring threads read neighbouring words.
  const int row = thread % kAcross, token = thread / kAcross;
  constexpr int kTokenStep = kTokens / kThreadTokens;
  float acc[kThreadTokens][kThreadRows] = {};
  launch_dependents();
  wait_for_dependencies();
  for (int64_t begin = 0; begin < p.k; begin += kChunk) {
    for (int i = thread; i < kRows * kChunk; i += kThreads) {
      const int r = i / kChunk, c = i % kChunk;
      const bool inside = first_row + r < p.n && begin + c < p.k;
      ws[c][r] = inside ? widen(w[(first_row + r) * p.k + begin + c]) : 0.0f;
    }
    for (int i = thread; i < kTokens * kChunk; i += kThreads) {
      const int t = i / kChunk, c = i % kChunk;
      const bool inside = first_token + t < p.m && begin + c < p.k;
      xs[c][t] = inside ? p.x[(first_token + t) * p.x_stride + begin + c] : 0.0f;
    }
    __syncthreads();
    // Channels beyond k would change the sign of a zero, or make NaN of an infinite partner.
    const int channels = static_cast<int>(p.k - begin < kChunk ? p.k - begin : kChunk);
    const auto step = [&](int c) {
      float wv[kThreadRows], xv[kThreadTokens];
#pragma unroll
      for (int j = 0; j < kThreadRows; ++j) wv[j] = ws[c][row + j * kAcross];
#pragma unroll
      for (int i = 0; i < kThreadTokens; ++i) xv[i] = xs[c][token + i * kTokenStep];
#pragma unroll
      for (int i = 0; i < kThreadTokens; ++i)
#pragma unroll
        for (int j = 0; j < kThreadRows; ++j) acc[i][j] = fmaf(xv[i], wv[j], acc[i][j]);
    };
    if (channels == kChunk) {
#pragma unroll 8
      for (int c = 0; c < kChunk; ++c) step(c);
    } else {
      for (int c = 0; c < channels; ++c) step(c);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kThreadTokens; ++i)
#pragma unroll
    for (int j = 0; j < kThreadRows; ++j) {
      const int64_t t = first_token + token + i * kTokenStep, r = first_row + row + j * kAcross;
      if (t >= p.m || r >= p.n) continue;
      float& out = p.y[t * p.y_stride + r];
      out = p.accumulate ? out + acc[i][j] : acc[i][j];
    }
}

}  // namespace atom::cuda
