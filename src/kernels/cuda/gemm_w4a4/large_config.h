#pragma once

#include <cstdint>

namespace atom::cuda::large {

/// The tiles that large_launch.cu has kernels for: output channels x tokens of a CTA. Clusters of two share tokens.
struct LargeConfig {
  int rows = 256;
  int tokens = 128;
  int cluster = 1;

  friend bool operator==(const LargeConfig&, const LargeConfig&) = default;
};

/// The tile shape that should take the least time on `sm_count` multiprocessors: waves of tiles times a tile's cost.
/// Small tiles fill the last wave better, large ones need fewer cycles an output. token_stride limits the tile's
/// tokens.
LargeConfig large_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count);

/// Cycles a CTA needs per unit of 128 channels of a tile, and once per tile (measured on an H200).
struct LargeCost {
  double unit;
  double tile;
};
LargeCost large_cost(const LargeConfig& config);

/// Token tiles that are worked on together before the next rows: what runs at one time should be about square.
int large_super(const LargeConfig& config, int64_t token_tiles);

/// Throws atom::Error.
[[noreturn]] void fail(const char* what, const char* why);

}  // namespace atom::cuda::large
