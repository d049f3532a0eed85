#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/cuda/layout.h"
#include "tensor/dtype.h"

namespace atom::cuda {

/// Y[tokens, n] = X[tokens, k] · W[n, k]^T of quantized operands with integer scales, in the layouts of
/// kernels/cuda/layout.h: groups of 128 normal channels (W INT4, X INT4 times its multiplier or INT8) and
/// n_outlier INT8 channels. Numerics (docs/numerics.md): with kw the rows' multipliers of a group, ow and ox
/// the outlier multipliers of row and token, uw and ux their scale units,
///   S = sum over groups of kw * sum x*qw, + ow * ox * sum over outliers of x*qw     exact, in int32
///   y = float(S) * (ux * uw), or y + that in float, rounded to y_dtype.
/// So the order of summation does not matter: all kernels give the same bits, which are the CPU's.
/// All pointers are device memory; weight, x and x_scales aligned to 16 bytes, y to its elements.
struct GemmW4A4 {
  const uint8_t* weight = nullptr;  ///< WeightTiles{n, groups, n_outlier}
  int64_t n = 0;                    ///< Output channels, >= 1
  int64_t groups = 0;               ///< >= 1
  int64_t n_outlier = 0;            ///< >= 0; integer_scales::fits()
  const int8_t* x = nullptr;        ///< ActivationBlocks{tokens, groups, n_outlier}
  const float* x_scales = nullptr;  ///< As ActivationBlocks describes, with sums if summed()
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
};

/// Launches the kernel (tile_kernel.cuh) with the tile that the shape asks for on context.stream. It waits
/// for the kernel launched before it (programmatic dependent launch) but reads ahead in the weights, which
/// therefore nobody may be writing. Throws atom::Error for arguments outside the ranges above.
void gemm_w4a4_sm90(const GemmContext& context, const GemmW4A4& gemm);

/// The definition, one thread an output: for tests, and for devices that are not sm_90.
void gemm_w4a4_reference(const GemmContext& context, const GemmW4A4& gemm);

}  // namespace atom::cuda
