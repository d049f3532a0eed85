#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/cuda/layout.h"
#include "tensor/dtype.h"

namespace atom::cuda {

struct GemmConfig;

/// Y[tokens, n] = X[tokens, k] · W[n, k]^T of quantized operands, in the layouts of kernels/cuda/layout.h:
/// groups of 128 normal channels (W INT4, X INT4 or INT8 in int8 bytes) and n_outlier INT8 channels. Numerics
/// (docs/numerics.md):
///   acc = 0;  for each group, ascending:  acc = fma(float(sum qx*qw), sx*sw, acc);  then all outlier
///   channels as one exact int32 sum in the same way;  y = acc, or y + acc in float, rounded to y_dtype.
/// All pointers are device memory; weight, x and sx aligned to 16 bytes, y to its elements.
struct GemmW4A4 {
  const uint8_t* weight = nullptr;  ///< WeightTiles{n, groups, n_outlier}
  int64_t n = 0;                    ///< Output channels, >= 1
  int64_t groups = 0;               ///< >= 0; 0 and n_outlier > 0: a pure INT8 layer
  int64_t n_outlier = 0;            ///< >= 0, at most 65,536 (so that the int32 sum is exact); K > 0
  const int8_t* x = nullptr;        ///< ActivationBlocks{tokens, groups, n_outlier}
  const float* sx = nullptr;        ///< [groups + 1][token_stride]
  int64_t tokens = 0;               ///< >= 0
  void* y = nullptr;                ///< [tokens][y_stride], the first n elements of each row are written
  DType y_dtype = DType::f32;       ///< f32, f16 or bf16
  int64_t y_stride = 0;             ///< Elements from one token's row to the next, >= n
  bool accumulate = false;          ///< y = y + acc instead of y = acc
};

/// Where a GEMM runs.
struct GemmContext {
  cudaStream_t stream = nullptr;
  int sm_count = 132;
  bool exact =
      true;  ///< K in one accumulator, in the contract's order: bit-identical with the CPU. Otherwise K may
             ///< be split in a fixed order: deterministic, within 2^-20 of the sum of |qx qw| sx sw
  /// For sums of parts of K: at least gemm_scratch_bytes(), aligned to 16 bytes, and gemm_counters() counters
  /// that were zeros at first. For one launch at a time.
  void* scratch = nullptr;
  size_t scratch_bytes = 0;
  unsigned* counters = nullptr;
  int64_t counter_count = 0;
};

/// What a GEMM needs of context.scratch; nothing where `exact`.
size_t gemm_scratch_bytes(const GemmContext& context, const GemmW4A4& gemm);
/// What any GEMM needs of context.counters.
int64_t gemm_counters(int sm_count);

/// Launches the kernel that the shape asks for (config.h) on context.stream. It waits for the kernel launched
/// before it (programmatic dependent launch) but reads ahead in the weights, which therefore nobody may be
/// writing. Throws atom::Error for arguments outside the ranges above.
void gemm_w4a4_sm90(const GemmContext& context, const GemmW4A4& gemm);

/// The forms for few tokens (1 to 128, but any number works): W is streamed once for every 8 to 128 tokens
/// (stream_kernel.cuh, small_kernel.cuh, divided_kernel.cuh). `config` is gemm_config()'s, or another to
/// compare with.
void gemm_w4a4_small(const GemmContext& context, const GemmW4A4& gemm, const GemmConfig& config);

/// The form for many tokens: persistent tiles (large_kernel.cuh).
void gemm_w4a4_large(const GemmContext& context, const GemmW4A4& gemm);

/// The definition, one thread an output: for tests, and for devices that are not sm_90.
void gemm_w4a4_reference(const GemmContext& context, const GemmW4A4& gemm);

}  // namespace atom::cuda
