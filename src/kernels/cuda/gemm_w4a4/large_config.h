#pragma once

#include <cstdint>
#include <span>

namespace atom::cuda::large {

/// The tiles that large_launch.cu has kernels for: output channels x tokens of a CTA, and how many CTAs, a
/// cluster, share a tile, with a part of K each.
struct LargeConfig {
  int rows = 128;
  int tokens = 256;
  int splits = 1;
  int turns = 1;

  friend bool operator==(const LargeConfig&, const LargeConfig&) = default;
};

/// All tiles that there are kernels for.
std::span<const LargeConfig> large_configs();

/// The tile that should take the least time on `sm_count` multiprocessors: waves of tiles times a tile's
/// cost. Small tiles fill the last wave better, large ones need less time an output. token_stride is a
/// multiple of the tile's tokens.
LargeConfig large_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count);

/// CTAs, and of `tiles` tiles the first ones, which one CTA computes alone, as many for each. What they leave
/// is shared: by the warpgroups of one CTA that take turns, or by a cluster. Without turns a cluster shares
/// the last tiles only, if there is at most one for each.
struct LargeGrid {
  int64_t ctas = 0, whole_tiles = 0;
};
LargeGrid large_grid(const LargeConfig& config, int64_t tiles, int sm_count);

/// Token tiles that are worked on together before the next rows: what runs at one time should be about
/// square.
int large_super(int tile_tokens, int64_t token_tiles);

}  // namespace atom::cuda::large
