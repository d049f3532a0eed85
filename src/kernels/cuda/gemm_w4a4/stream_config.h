#pragma once

#include <cstdint>

namespace atom::cuda {

/// Up to this many tokens W is multiplied by `mma`, whose fragments of X each warp reads for every few rows
/// (stream_kernel.cuh): beyond, that costs more than the tiles of large_kernel.cuh.
inline constexpr int64_t kMaxStreamTokens = 8;

/// How the GEMM for few tokens is cut. A plain host function, so that it can be tested without a GPU.
struct StreamConfig {
  int64_t token_tiles = 1;  ///< Of kMaxStreamTokens tokens
  int64_t ctas = 1;         ///< Along the rows of W, which are divided among them in blocks of 16
};

/// For any number of tokens, though beyond kMaxStreamTokens W is read several times.
StreamConfig stream_config(int64_t n, int64_t tokens, int sm_count);

}  // namespace atom::cuda
