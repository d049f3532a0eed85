#pragma once

#include <cstddef>
#include <cstdint>

namespace atom::cuda {

/// Which kernel computes a GEMM, and how its work is cut. Plain host functions, so that every choice can be
/// tested without a GPU.
struct GemmConfig {
  enum class Kind {
    stream,   ///< stream_kernel.cuh: up to 16 tokens a CTA, rows of W divided among `ctas`
    small,    ///< small_kernel.cuh: tiles of 128 rows, K split over clusters of `splits`
    divided,  ///< divided_kernel.cuh: whole tiles, or units divided among `ctas`
    large,    ///< large_kernel.cuh, which has its own configuration
  };
  Kind kind = Kind::stream;
  int tokens = 8;           ///< Tokens of a CTA: 8 or 16 (stream); 32, 64 or 128 (small); 8 to 128 (divided)
  int64_t token_tiles = 1;  ///< Of that many tokens
  int64_t ctas = 1;         ///< Along the rows of W
  int splits = 1;           ///< small: of K; size of a cluster
  bool even = false;        ///< divided: units of all tiles are divided evenly, not whole tiles
};

/// The kernel for a shape. `exact`: K is not split among accumulators.
GemmConfig gemm_config(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, bool exact,
                       int sm_count);

/// The same for one of the kernels for few tokens, whatever the number of tokens (small: from 17 on).
GemmConfig stream_config(int64_t n, int64_t tokens, int sm_count);
GemmConfig small_config(int64_t n, int64_t units, int64_t tokens, int sm_count);
GemmConfig divided_config(int64_t n, int64_t units, int64_t tokens, bool even, int sm_count);

/// Bytes of GemmContext::scratch that a configuration needs.
size_t scratch_bytes(const GemmConfig& config);
/// CTAs of `tokens` that share a multiprocessor (small, divided).
int resident_ctas(int tokens);

inline constexpr int kMaxSplits = 8;  // CTAs of a portable cluster

/// Up to this many tokens W is streamed where K may be split: beyond, reading X for every 16 rows costs more.
inline constexpr int64_t kMaxStreamTokens = 16;
/// From this many tokens on the large kernel is ahead.
inline constexpr int64_t kMinLargeTokens = 129;
/// The large kernel keeps the outlier units of a tile in its ring.
inline constexpr int64_t kMaxLargeOutliers = 256;

}  // namespace atom::cuda
