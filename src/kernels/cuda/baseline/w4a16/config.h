#pragma once

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"

/// Tile choice of the W4A16 baseline.
namespace atom::cuda::baseline::w4a16 {

inline constexpr int kTileRows = 128;
inline constexpr int kGroup = 128;
/// Weights [n, k] in tiles of 128 rows (zeros beyond n) and groups of 128 channels (zeros beyond k), tile by
/// tile, group by group: 128 rows of 64 bytes (INT4 two's complement), then their 128 fp16 scales. So a CTA
/// streams its share in one piece. Of the 8 channels of a 32-bit word the even ones are its lower four
/// nibbles, ascending, the odd ones the upper four; the four words of the t-th 16 bytes come in the order w ^
/// t.
inline constexpr int kValueBytes = kTileRows * kGroup / 2;
inline constexpr int kUnitBytes = kValueBytes + kTileRows * 2;

/// First channel of a group's word, of 16.
ATOM_HOST_DEVICE constexpr int first_channel(int word) {
  const int piece = word / 4;
  return (piece * 4 + (word % 4 ^ piece)) * 8;
}

/// Beyond this many tokens the weights are dequantized first and cuBLASLt takes over.
inline constexpr int64_t kMaxTokens = 128;
/// Tokens of a tile; more tokens than that read the weights once for every tile.
inline constexpr int kMaxTileTokens = 64;
/// CTAs that share a tile along k; they form a cluster.
inline constexpr int kMaxSplits = 8;

struct Config {
  int tokens;       // of a tile: 8, 16, 32 or 64
  int splits;       // CTAs along k
  int ctas_per_sm;  // that fit
};

/// The fewest tokens that hold m, and the split along k that finishes first when every CTA on the chip
/// streams at the same rate: waves * (groups of a CTA + 2 for start and epilogue).
inline Config choose(int64_t m, int64_t n, int64_t k, int sm_count) {
  Config config{8, 1, 5};
  while (config.tokens < m && config.tokens < kMaxTileTokens) config.tokens *= 2;
  config.ctas_per_sm = config.tokens == 8 ? 5 : config.tokens == 16 ? 4 : 3;
  const int64_t groups = (k + kGroup - 1) / kGroup;
  const int64_t tiles = (n + kTileRows - 1) / kTileRows * ((m + config.tokens - 1) / config.tokens);
  const int64_t capacity = int64_t{sm_count} * config.ctas_per_sm;
  int64_t best = INT64_MAX;
  for (int splits = 1; splits <= kMaxSplits && splits <= groups; ++splits) {
    const int64_t waves = (tiles * splits + capacity - 1) / capacity;
    const int64_t time = waves * ((groups + splits - 1) / splits + 2);
    if (time < best) best = time, config.splits = splits;
  }
  return config;
}

}  // namespace atom::cuda::baseline::w4a16
