#pragma once

#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/large_config.h"

namespace atom::cuda {

/// Whether gemm_w4a4_large() computes this shape: more than 32 tokens (so that a block of activations holds
/// 64), at most 256 outlier channels (their int32 sums stay in the ring together).
bool gemm_w4a4_large_supports(const GemmW4A4& gemm);

namespace large {

/// gemm_w4a4_large() with a given tile: for tests and benchmarks. Throws atom::Error if there is no such
/// kernel.
void launch(const GemmContext& context, const GemmW4A4& gemm, const LargeConfig& config);

}  // namespace large
}  // namespace atom::cuda
