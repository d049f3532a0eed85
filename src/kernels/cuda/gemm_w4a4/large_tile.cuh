#pragma once

#include <cstdint>

#include "kernels/cuda/layout.h"
#include "tensor/dtype.h"

/// Tiles of the GEMM for many tokens (large_kernel.cuh): how a CTA's registers and shared memory are divided,
/// and the order in which tiles are worked on.
namespace atom::cuda::large {

struct Arguments {
  const uint8_t* weight;
  const float* row_units;  ///< Behind the weight's tiles; outlier multipliers `rows` further
  const int8_t* x;
  const float* token_units;  ///< Outlier multipliers `stride` further
  void* y;
  int64_t y_stride;
  int64_t stride;  ///< token_stride
  int n, tokens, groups, outlier_units;
  int rows;  ///< Of the packed weight
  int row_tiles, token_tiles;
  int super;  ///< Token tiles that are worked on together before the next rows
  DType y_dtype;
  bool accumulate;
  bool vector_stores;  ///< y and y_stride are multiples of 16 bytes
};

/// Half a unit, 64 rows, in a stage: its values, and multipliers of its rows at least.
inline constexpr int kHalfUnitBytes = kUnitValueBytes / 2 + kTileRows;

/// A CTA's tile: kWarpgroups consumer warpgroups of 64 rows and kTokens tokens each. kSplits CTAs, a cluster,
/// share a tile: each multiplies a part of K.
template <int kWarpgroupsOf, int kTokensOf, int kSplitsOf>
struct Tile {
  static constexpr int kWarpgroups = kWarpgroupsOf;
  static constexpr int kTokens = kTokensOf;
  static constexpr int kSplits = kSplitsOf;
  /// CTAs of a cluster that finish outputs, of 16 tokens at least.
  static constexpr int kFinishers = kSplits < kTokens / 16 ? kSplits : kTokens / 16;
  static constexpr int kRows = kWarpgroups * 64;
  static constexpr int kConsumers = kWarpgroups * 128;
  static constexpr int kThreads = kConsumers + 128;
  // Registers: of 64 Ki a CTA gets kThreads times a multiple of 8 at launch, 504 or 512 for a thread of every
  // warpgroup together; the producer's give most of theirs to the others.
  static constexpr int kConsumerRegisters = kWarpgroups == 2 ? 224 : 152;
  static constexpr int kProducerRegisters = 56;

  // The ring: all stages' tokens (1024-byte aligned for the swizzle), then all stages' weights.
  static constexpr int kXBytes = kTokens * kUnitChannels;
  static constexpr int kWeightBytes = kWarpgroups == 2 ? kUnitBytes : kUnitBytes + kHalfUnitBytes;
  static constexpr int kStageBytes = kXBytes + kWeightBytes;
  // Behind it, for each warpgroup: the tokens' scale units and outlier multipliers, and for each of its warps
  // a buffer in which the epilogue transposes 16 rows x 32 tokens of 16 bits, or x 16 tokens of float. Rows
  // of a buffer are 16 bytes longer than their values, against bank conflicts.
  static constexpr int kScaleBytes = 2 * 4 * kTokens;
  static constexpr int kPackedPitch = 16 * 2 + 16;
  static constexpr int kFloatPitch = 16 * 4 + 16;
  static constexpr int kBufferBytes = 32 * kPackedPitch;
  static constexpr int kOwnBytes = kScaleBytes + 4 * kBufferBytes;
  static constexpr int kBarrierBytes = 16 * 8;
  static constexpr int kFit = (232448 - kWarpgroups * kOwnBytes - kBarrierBytes) / kStageBytes;
  static constexpr int kStages = kFit < 8 ? kFit : 8;
  static constexpr int kWeightsAt = kStages * kXBytes;
  static constexpr int kOwnAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kOwnAt + kWarpgroups * kOwnBytes;
  static constexpr int kSharedBytes = kBarriersAt + kBarrierBytes;
  static_assert(kWarpgroups == 2 || kWarpgroups == 3);
  static_assert(16 * kFloatPitch <= kBufferBytes && kSharedBytes <= 232448);
  /// Sums of all of the tile's outputs, which a cluster exchanges, lie in the ring.
  static_assert(kSplits == 1 || kRows * kTokens * 4 <= kOwnAt);
};

/// Where a stage's weights have what a warpgroup needs. A CTA's rows begin with a whole tile of the packed
/// weight, or, of three warpgroups, in its middle: then with the half `odd`, as it is followed by the
/// multipliers of both halves.
struct WeightPlace {
  int values, multipliers;

  static __device__ WeightPlace of(int warpgroups, int warpgroup, bool odd) {
    const int half = warpgroup + (odd ? 1 : 0), base = half / 2 * kUnitBytes;
    constexpr int kHalf = kUnitValueBytes / 2;
    if (odd) {
      if (half == 1) return {0, kHalf + 64};
      return {base - kUnitBytes + kHalfUnitBytes + half % 2 * kHalf,
              base - kUnitBytes + kHalfUnitBytes + kUnitValueBytes + half % 2 * 64};
    }
    const bool alone = half % 2 == 0 && warpgroup + 1 == warpgroups;
    return {base + half % 2 * kHalf, base + (alone ? kHalf : kUnitValueBytes + half % 2 * 64)};
  }
};

struct Place {
  int row_tile, token_tile;
};

/// Tiles in an order that keeps what runs at the same time in L2: `super` token tiles, all rows, then the
/// next.
__device__ __forceinline__ Place place_of(int item, const Arguments& p) {
  const int band_items = p.super * p.row_tiles;
  const int band = item / band_items, within = item - band * band_items;
  const int width = min(p.super, p.token_tiles - band * p.super);
  const int row = within / width;
  return {row, band * p.super + within - row * width};
}

/// The units of a tile in the order in which they are multiplied: outliers first, because their sums have a
/// multiplier of their own. Two units of outliers share a block of tokens, which the first one brings.
struct Units {
  int groups, outlier_units;

  __device__ int count() const { return groups + outlier_units; }
  __device__ bool is_outlier(int i) const { return i < outlier_units; }
  __device__ int unit(int i) const { return is_outlier(i) ? groups + i : i - outlier_units; }
  __device__ bool brings_tokens(int i) const { return !is_outlier(i) || i % 2 == 0; }
  __device__ int block(int i) const { return is_outlier(i) ? groups + i / 2 : i - outlier_units; }
  /// Where part `part` of `parts` begins; pairs of outlier units stay together.
  __device__ int part(int part, int parts) const {
    const int begin = count() * part / parts;
    return begin < outlier_units ? begin / 2 * 2 : begin;
  }
};

}  // namespace atom::cuda::large
