#pragma once

#include <algorithm>
#include <cstdint>

/// Tile choice of the W4A16 baseline.
namespace atom::cuda::baseline::w4a16 {

inline constexpr int kTileRows = 128;
inline constexpr int kGroup = 128;
/// Weights [n, k] in tiles of 128 rows (zeros beyond n) and groups of 128 channels (zeros beyond k), tile by
/// tile, group by group: 8192 bytes of values, then 128 fp16 scales, so that a CTA streams its share in one
/// piece. The values are in the order of the A operand of `wgmma` with fp16 operands (PTX ISA, "Register
/// Fragments for wgmma.mma_async.m64nNk16"): [8 blocks of 16 rows][2 halves of 64 channels][32 lanes][4 steps
/// of 16 channels] words of 8 nibbles.
inline constexpr int kValueBytes = kTileRows * kGroup / 2;
inline constexpr int kUnitBytes = kValueBytes + kTileRows * 2;

/// Row and channel, of a tile and a group, of a nibble of byte `byte` of a unit.
struct NibblePlace {
  int row;
  int channel;
};
constexpr NibblePlace nibble_place(int byte, bool high) {
  const int lane = byte / 16 % 32, step = byte / 4 % 4, nibble = byte % 4 * 2 + (high ? 1 : 0);
  return {byte / 1024 * 16 + nibble % 2 * 8 + lane / 4,
          byte / 512 % 2 * 64 + step * 16 + nibble % 4 / 2 * 8 + lane % 4 * 2 + nibble / 4};
}

/// Where 8 neighbouring channels of a row lie in a unit, 8 * chunk of a group on: pair i of them in word
/// `byte` + 16 i, at bits `shift` and `shift` + 16.
struct ChunkPlace {
  int byte;
  int shift;
};
constexpr ChunkPlace chunk_place(int row, int chunk) {
  return {row / 16 * 1024 + chunk / 8 * 512 + row % 8 * 64 + chunk % 8 / 2 * 4,
          4 * (row % 16 / 8 + chunk % 2 * 2)};
}

/// Beyond this many tokens the weights are dequantized first and cuBLASLt takes over.
inline constexpr int64_t kMaxTokens = 256;
/// Tokens of the largest tile.
inline constexpr int64_t kTileTokens = 64;
/// CTAs that share a tile along k; they form a cluster.
inline constexpr int kMaxSplits = 8;

struct Config {
  int tokens;       // of a tile: 8, 16, 32 or 64
  int tiles;        // of 128 rows, of a CTA: 1 or 2
  int splits;       // CTAs along k
  int ctas_per_sm;  // that fit
};

/// The fewest tokens that hold m, and the split along k that finishes first when every CTA on the chip
/// streams at the same rate: waves * (groups of a CTA + 2 for start and epilogue). 64 tokens take 256 rows a
/// CTA, or reading x would take longer than reading the weights.
inline Config choose(int64_t m, int64_t n, int64_t k, int sm_count) {
  Config config{8, 1, 1, 2};
  while (config.tokens < std::min(m, kTileTokens)) config.tokens *= 2;
  if (config.tokens == kTileTokens) config.tiles = 2, config.ctas_per_sm = 1;
  const int64_t groups = (k + kGroup - 1) / kGroup, rows = int64_t{config.tiles} * kTileRows;
  const int64_t tiles = (n + rows - 1) / rows * ((m + config.tokens - 1) / config.tokens);
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
