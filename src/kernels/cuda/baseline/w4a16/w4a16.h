#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/cuda/baseline/cublas_lt.h"

namespace atom::cuda::baseline {

/// y[m, n] = x[m, k] * (values * scales)[n, k]^T (+ y where `accumulate`), weights alone quantized (W4A16).
/// All on the device; k is a multiple of 8, every pointer 16-byte aligned.
struct W4A16Args {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const void* x = nullptr;              // [m, k] f16
  const uint8_t* w = nullptr;           // as w4a16_pack wrote it
  ResultType result = ResultType::f16;  // f32 or f16
  void* y = nullptr;
  int64_t y_stride = 0;  // elements from row to row; 0: dense
  bool accumulate = false;
};

/// Bytes of packed weights.
size_t w4a16_packed_bytes(int64_t n, int64_t k);

/// Packs values [n, k / 2] (INT4 two's complement, even channel in the low nibble) and scales [n, ceil(k /
/// 128)] (fp16 bits, one a group of 128 channels) for w4a16_matmul (w4a16/config.h). k is even.
void w4a16_pack(const uint8_t* values, const uint16_t* scales, int64_t n, int64_t k, uint8_t* packed,
                cudaStream_t stream);

/// Bytes of scratch that more than w4a16::kMaxTokens tokens want: weights dequantized to f16, or a slab of
/// their rows.
size_t w4a16_scratch_bytes(const W4A16Args& args);

/// Up to w4a16::kMaxTokens tokens by a kernel of its own that streams the 4-bit weights, which it may read
/// before the kernel ahead of it has ended; beyond, the weights are dequantized to f16 in `scratch` and
/// multiplied by cuBLASLt. In both, a weight is fp16(value * scale) and sums are f32.
void w4a16_matmul(const W4A16Args& args, CublasLt& lt, void* scratch, cudaStream_t stream);

}  // namespace atom::cuda::baseline
