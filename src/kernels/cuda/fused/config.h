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

/// Units of a row: 128 normal channels or 128 outliers each.
inline int64_t row_units(const ChannelLayout& layout) {
  return layout.groups() + (layout.n_outlier + kChannels - 1) / kChannels;
}

/// Whether the kernels that hold a token's row in shared memory take it: up to 16,384 channels.
inline bool is_fast_row(const ChannelLayout& layout) {
  return is_four_aligned(layout) && row_units(layout) <= 128;
}

// A block a token (row_single.cuh).

/// Threads that a block may have; more units a warp need more registers.
constexpr int max_single_threads(int units_per_warp) {
  return units_per_warp <= 4 ? 1024 : 544;
}
/// Registers of a thread, of float rows so few that a block of up to 17 warps finds room beside one of the
/// GEMM for few tokens with two consumer warpgroups (tile.cuh): 5 warps of 1,280 registers in the 8,704 left
/// in a quarter of the multiprocessor.
constexpr int max_single_registers(int units_per_warp, size_t element_bytes) {
  return units_per_warp == 2 && element_bytes == 4 ? 40 : units_per_warp <= 4 ? 64 : 96;
}

/// Shape of a block.
struct SingleConfig {
  /// Units that a warp handles: 2, 4 or 8.
  int units_per_warp;
  /// Quantizing warps; one more walks the sum of squares.
  int warps;
};

/// As many warps as there can be, for the shortest time; fewer where several tokens share a multiprocessor.
inline SingleConfig single_config(const ChannelLayout& layout, int64_t tokens, int sm_count) {
  const auto units = static_cast<int>(row_units(layout));
  int per_warp = tokens <= sm_count ? 2 : 4;
  while (32 * ((units + per_warp - 1) / per_warp + 1) > max_single_threads(per_warp)) per_warp *= 2;
  return {per_warp, (units + per_warp - 1) / per_warp};
}

// Persistent blocks (row_stream.cuh).

inline constexpr int kStreamUnits = 4;
inline constexpr int kMaxSlots = 8;
/// Threads of all blocks on a multiprocessor: a slot's tokens are quantized together, which takes registers.
constexpr int max_stream_threads(int slot_tokens) {
  return slot_tokens == 1 ? 1024 : 768;
}
/// Shared memory of a multiprocessor, and what a block takes of it beside its ring.
inline constexpr int kSharedPerSm = 228 * 1024;
inline constexpr int kSharedPerBlock = 2048;

struct StreamConfig {
  /// Blocks on a multiprocessor; 0: the row does not suit this kernel.
  int blocks;
  /// Quantizing warps of a block; one more copies, another walks the sums of squares.
  int warps;
  int slots;
  int slot_tokens;
  /// Bytes from row to row: 64 more than a multiple of 128.
  int pitch;

  int slot_bytes() const { return slot_tokens * pitch; }
};

/// Two tokens a slot, so that the exchanges of the quantizing warps serve both, where there is a block of two
/// slots; then as many blocks as registers allow, so that they fill each other's gaps.
inline StreamConfig stream_config(const ChannelLayout& layout, int element_bytes) {
  StreamConfig config{};
  config.warps = static_cast<int>((row_units(layout) + kStreamUnits - 1) / kStreamUnits);
  config.pitch = (static_cast<int>(layout.k) * element_bytes + 127) / 128 * 128 + 64;
  for (config.slot_tokens = 2; config.slot_tokens > 0; --config.slot_tokens) {
    for (int blocks = max_stream_threads(config.slot_tokens) / (32 * (config.warps + 2)); blocks > 0;
         --blocks) {
      config.slots = std::min(kMaxSlots, (kSharedPerSm / blocks - kSharedPerBlock) / config.slot_bytes());
      if (config.slots < 2) continue;
      config.blocks = blocks;
      return config;
    }
  }
  return config;
}

/// Whether the persistent kernel is the faster one: there are more tokens than blocks of a token fit at once.
inline bool is_stream(const StreamConfig& config, int64_t tokens, int sm_count) {
  return config.blocks > 0 && tokens > 3 * int64_t{sm_count};
}

// SiLU * up (silu.cu).

inline constexpr int kMaxSiluCluster = 8;

/// Warps that a block may have.
constexpr int max_silu_warps(int units_per_warp) {
  return units_per_warp == 1 ? 32 : 16;
}

/// A token's cluster of 2^cluster_bits blocks.
struct SiluConfig {
  int cluster_bits;
  int warps;
  int units_per_block;
  /// 1, 2 or 4.
  int units_per_warp;
};

/// Few tokens: few units a warp, for the shortest time. More, once the device would not hold all warps at
/// once. Then the smallest cluster whose blocks have few warps: such blocks wait less for their slowest one.
inline SiluConfig silu_config(const ChannelLayout& layout, int64_t tokens, int sm_count) {
  const auto units = static_cast<int>(row_units(layout));
  SiluConfig config{0, 0, 0, 1};
  while (config.units_per_warp < 4 && tokens * units > 42 * int64_t{sm_count} * config.units_per_warp) {
    config.units_per_warp *= 2;
  }
  for (;; ++config.cluster_bits) {
    config.units_per_block = (units + (1 << config.cluster_bits) - 1) >> config.cluster_bits;
    config.warps = (config.units_per_block + config.units_per_warp - 1) / config.units_per_warp;
    if (config.warps <= 12 || 1 << config.cluster_bits == kMaxSiluCluster) break;
  }
  return config;
}

/// Whether that kernel takes a token's row: up to 32,768 channels.
inline bool is_fast_silu(const ChannelLayout& layout) {
  return is_four_aligned(layout) && row_units(layout) <= 32 * kMaxSiluCluster;
}

}  // namespace atom::cuda::fused
