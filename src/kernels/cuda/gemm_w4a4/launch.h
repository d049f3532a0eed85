#pragma once

#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/tile_config.h"

namespace atom::cuda::tiles {

/// gemm_w4a4_sm90() with a given tile: for tests and benchmarks. Arguments as check_gemm() has passed them,
/// tokens > 0. Throws atom::Error if there is no such kernel, the tokens' stride is not a multiple of its
/// tokens, or its weights have an offset and there are more tokens than have sums.
void launch(const GemmContext& context, const GemmW4A4& gemm, const TileConfig& config);

}  // namespace atom::cuda::tiles
