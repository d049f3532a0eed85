#pragma once

#include <cstdint>
#include <span>

namespace atom::cuda::tiles {

/// A tile that launch.cu has a kernel for: output channels x tokens of a CTA.
struct TileConfig {
  int rows = 128;
  int tokens = 256;
  int splits = 1;  ///< CTAs, a cluster, that share a tile, with a part of K each
  int turns = 1;   ///< Warpgroups that take turns with the units of the same rows

  friend bool operator==(const TileConfig&, const TileConfig&) = default;
};

/// All tiles that there are kernels for.
std::span<const TileConfig> tile_configs();

/// The tile that should take the least time on `sm_count` multiprocessors: waves of tiles times a tile's
/// cost. Small tiles fill the last wave better, large ones need less time an output. token_stride is a
/// multiple of the tile's tokens.
TileConfig tile_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count);

/// CTAs, and of `tiles` tiles the first ones, which one CTA computes alone, as many for each. What they leave
/// is shared: by the warpgroups of one CTA that take turns, or by a cluster. Without turns a cluster shares
/// the last tiles only, if there is at most one for each.
struct TileGrid {
  int64_t ctas = 0, whole_tiles = 0;
};
TileGrid tile_grid(const TileConfig& config, int64_t tiles, int sm_count);

/// Token tiles that are worked on together before the next rows: what runs at one time should be about
/// square.
int tile_super(int tile_tokens, int64_t token_tiles);

}  // namespace atom::cuda::tiles
