#pragma once

#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/large_config.h"

namespace atom::cuda {

/// Whether gemm_w4a4_large() computes this shape: more than 8 tokens.
bool gemm_w4a4_large_supports(const GemmW4A4& gemm);

/// The GEMM for many tokens (large_kernel.cuh).
/// Arguments as check_gemm() has passed them, tokens > 0; throws atom::Error for what it does not support.
void gemm_w4a4_large(const GemmContext& context, const GemmW4A4& gemm);

namespace large {

/// gemm_w4a4_large() with a given tile: for tests and benchmarks. Throws atom::Error if there is no such
/// kernel.
void launch(const GemmContext& context, const GemmW4A4& gemm, const LargeConfig& config);

}  // namespace large
}  // namespace atom::cuda
