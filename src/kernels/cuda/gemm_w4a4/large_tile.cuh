#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/layout.h"
#include "tensor/dtype.h"

/// Tiles of the large-M GEMM (large_kernel.cuh): how a CTA's registers and shared memory are divided, and the
/// order in which tiles are worked on.
namespace atom::cuda::large {

struct Arguments {
  const uint8_t* weight;
  const int8_t* x;
  const float* sx;
  void* y;
  int64_t y_stride;
  int64_t stride;  ///< token_stride
  int n, tokens, groups, outlier_units;
  int row_tiles, token_tiles;
  int super;  ///< Token tiles that are worked on together before the next rows
  DType y_dtype;
  bool accumulate;
  bool vector_stores;  ///< y and y_stride are multiples of 16 bytes
};

/// A CTA's tile: kRowGroups x kTokenGroups consumer warpgroups of kBlocks x 64 rows and kTokens /
/// kTokenGroups tokens.
template <int kRowGroupsOf, int kBlocksOf, int kTokenGroupsOf, int kTokensOf, int kClusterOf>
struct Tile {
  static constexpr int kRowGroups = kRowGroupsOf;
  static constexpr int kBlocks = kBlocksOf;
  static constexpr int kTokenGroups = kTokenGroupsOf;
  static constexpr int kTokens = kTokensOf;
  static constexpr int kCluster = kClusterOf;
  static constexpr int kRows = kRowGroups * kBlocks * 64;
  static constexpr int kWarpgroups = kRowGroups * kTokenGroups;
  static constexpr int kOwnTokens = kTokens / kTokenGroups;
  /// Tokens of one product.
  static constexpr int kPart = kOwnTokens < 64 ? kOwnTokens : 64;
  static constexpr int kParts = kOwnTokens / kPart;
  // Registers: of 64 Ki a CTA gets kThreads times a multiple of 8 at launch, 504 or 512 for a thread of every
  // warpgroup together; the producer's give most of theirs to the others.
  static constexpr bool kResize = kWarpgroups < 4;
  static constexpr int kConsumerRegisters = kWarpgroups == 2 ? 240 : kWarpgroups == 3 ? 160 : 96;
  static constexpr int kProducerRegisters = kWarpgroups == 2 ? 24 : 32;
  static constexpr int kThreads = kWarpgroups * 128 + (kResize ? 128 : 32);
  /// Whether a warpgroup has two sets of sums: it scales one while the next product is under way.
  static constexpr bool kOverlap = kWarpgroups == 2 && kParts == 2;
  /// Whether registers allow to load the tokens' scales before the product is done.
  static constexpr bool kPrefetch = true;

  // A stage: tokens' values (1024-byte aligned for the swizzle), weights, their scales, the tokens' scales.
  static constexpr int kXBytes = kTokens * kUnitChannels;
  static constexpr int kValueBytes = kRows * 64;
  static constexpr int kScaleBytes = kRows * 2;
  static constexpr int kSxBytes = kTokens * 4;
  static constexpr int kValuesAt = kXBytes;
  static constexpr int kScalesAt = kValuesAt + kValueBytes;
  static constexpr int kSxAt = kScalesAt + kScaleBytes;
  static constexpr int kStageBytes = (kSxAt + kSxBytes + 1023) / 1024 * 1024;
  // The epilogue transposes 64 rows x 32 tokens at a time, per warpgroup.
  static constexpr int kPitch = 68;
  static constexpr int kStagingBytes = kWarpgroups * 32 * kPitch * 4;
  static constexpr int kFit = (232448 - 1024 - kStagingBytes) / kStageBytes;
  static constexpr int kStages = kFit < 8 ? kFit : 8;
  static constexpr int kStagingAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kStagingAt + kStagingBytes;
  static constexpr int kSharedBytes = kBarriersAt + 2 * kStages * 8;
};

/// Units of outlier channels that stay in the ring together.
inline constexpr int kMaxOutlierUnits = 4;

struct Place {
  int row_tile, token_tile;
};

/// Work items in an order that keeps what runs at the same time in L2: `super` token tiles, all rows, then
/// the next.
__device__ __forceinline__ Place place_of(int item, int row_tiles, int token_tiles, int super) {
  const int band_items = super * row_tiles;
  const int band = item / band_items, within = item - band * band_items;
  const int width = min(super, token_tiles - band * super);
  const int row = within / width;
  return {row, band * super + within - row * width};
}

/// Position of the producer in the ring and the parity of its current use.
template <int kStages>
struct Ring {
  int slot = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
};

}  // namespace atom::cuda::large
