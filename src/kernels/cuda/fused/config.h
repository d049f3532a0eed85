#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/quantized.h"

/// Host-side choices of the fused quantizing kernels.
namespace atom::cuda::fused {

inline constexpr int kChannels = 128;

/// Whether a layout has the form that the fast kernels take: groups of 128, INT8 outliers, and boundaries at
/// multiples of four channels.
inline bool is_four_aligned(const ChannelLayout& layout) {
  return layout.group == kChannels && (layout.outlier_type == OutlierType::int8 || layout.n_outlier == 0) &&
         layout.k % 4 == 0 && layout.n_outlier % 4 == 0;
}

/// Units of a row: 128 normal channels each, all the outliers one; or pieces of 128 channels as they come in.
inline int64_t row_units(const ChannelLayout& layout) {
  return std::max(layout.groups() + (layout.n_outlier > 0 ? 1 : 0), (layout.k + kChannels - 1) / kChannels);
}

/// Whether the kernel that holds a token's row in shared memory takes it: up to 16,384 channels.
inline bool is_fast_row(const ChannelLayout& layout) {
  return is_four_aligned(layout) && row_units(layout) <= 128;
}

/// Shape of a block of that kernel.
struct RowConfig {
  /// Units that a warp handles: 1, 2, 4 or 8.
  int units_per_warp;
  int warps;
};

/// Warps that the row kernel of so many units a warp may have; its registers allow no more.
constexpr int max_warps(int units_per_warp) {
  return units_per_warp <= 2 ? 32 : 16;
}

inline constexpr int kMaxTileTokens = 8;

/// Tokens whose rows a block holds at once: those that 64 KB hold, but one where blocks are few.
inline int tile_tokens(int64_t row_bytes, int64_t tokens, int sm_count) {
  int64_t tile = 1;
  while (tile < kMaxTileTokens && 2 * tile * row_bytes <= 64 * 1024 && 4 * tile * sm_count <= tokens)
    tile *= 2;
  return static_cast<int>(tile);
}

/// Few tokens: as many warps as a block can have, for the shortest time. Many: four units a warp, so that
/// several tokens share a multiprocessor and one's loads hide behind another's arithmetic.
inline RowConfig row_config(const ChannelLayout& layout, int64_t tokens, int sm_count) {
  const int64_t units = row_units(layout);
  int per_warp = tokens <= 2 * int64_t{sm_count} ? 1 : 4;
  while (per_warp * int64_t{max_warps(per_warp)} < units) per_warp *= 2;
  return {per_warp, static_cast<int>((units + per_warp - 1) / per_warp)};
}

}  // namespace atom::cuda::fused
