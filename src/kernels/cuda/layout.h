#pragma once

#include <cstdint>

#include "base/host_device.h"

/// Layouts that the CUDA kernels for sm_90 share: packed low-bit weights and blocked activations, both with
/// integer scales (kernels/integer_scales.h). Plain index functions for host and device, so that packing,
/// kernels and tests cannot disagree.
///
/// Weights [n, k], k = groups * 128 normal channels, then n_outlier INT8 ones: rows in tiles of 128 (zeros
/// beyond n), channels in units: a normal unit is a group of 128, an outlier unit 64 channels (zeros beyond
/// n_outlier). Unit u of tile i lies at (i * units + u) * kUnitBytes: two halves of 64 rows, each 4096 bytes
/// of values, then 64 bytes of multipliers (zeros in outlier units), those of the rows g and g + 8 of a block
/// of 16 next to each other. The values are in the order of the A operand of `wgmma` with 8-bit types (PTX
/// ISA, "Register Fragments for wgmma.mma_async.m64nNk32"), so that a warp's 16 bytes a lane are its
/// fragments: [4 blocks of 16 rows] [2 halves of the channels][32 lanes][16 bytes]. Behind all units: the
/// rows' scale units, float [tiles * 128], then their outlier multipliers, float [tiles * 128] (1 where there
/// are no outliers).
///
/// Activations: values int8 [blocks][token_stride][128], a block being 128 channels (of outliers, two units),
/// INT4 values times their group's multiplier; 16-byte chunk c of token r is stored at chunk c ^ (r % 8), the
/// 128-byte swizzle of `wgmma` operands in shared memory, so that a plain bulk copy of consecutive tokens is
/// a valid operand. scales float [2][token_stride]: the tokens' scale units, then their outlier multipliers
/// (1 where there are no outliers). Behind them, int32 [kSumParts][token_stride]: what adds
/// up to the sum of a token's values of normal channels, for kernels that multiply by weights with an offset;
/// of up to kMostSummed tokens only, as sums cost time and the kernels for more do without. Tokens that pad a
/// block to token_stride hold anything.
namespace atom::cuda {

inline constexpr int kTileRows = 128;
inline constexpr int kUnitChannels = 128;
inline constexpr int kOutlierUnitChannels = 64;
inline constexpr int kHalfTileRows = 64;
inline constexpr int kHalfUnitValueBytes = kHalfTileRows * kUnitChannels / 2;
inline constexpr int kHalfUnitBytes = kHalfUnitValueBytes + kHalfTileRows;
inline constexpr int kUnitBytes = 2 * kHalfUnitBytes;

/// Where a weight lies in the values of its unit: a byte, and for normal units a nibble of it (two's
/// complement).
struct ValuePlace {
  int byte;
  bool high_nibble;
};

/// Units and tiles of a packed weight.
struct WeightTiles {
  int64_t n = 0;
  int64_t groups = 0;
  int64_t n_outlier = 0;

  ATOM_HOST_DEVICE int64_t tiles() const { return (n + kTileRows - 1) / kTileRows; }
  ATOM_HOST_DEVICE int64_t outlier_units() const {
    return (n_outlier + kOutlierUnitChannels - 1) / kOutlierUnitChannels;
  }
  ATOM_HOST_DEVICE int64_t units() const { return groups + outlier_units(); }
  ATOM_HOST_DEVICE int64_t rows() const { return tiles() * kTileRows; }
  /// Where the rows' scale units and their outlier multipliers begin.
  ATOM_HOST_DEVICE int64_t row_units_offset() const { return tiles() * units() * kUnitBytes; }
  ATOM_HOST_DEVICE int64_t outlier_multipliers_offset() const { return row_units_offset() + 4 * rows(); }
  ATOM_HOST_DEVICE int64_t bytes() const { return row_units_offset() + 8 * rows(); }
  ATOM_HOST_DEVICE int64_t unit_offset(int64_t tile, int64_t unit) const {
    return (tile * units() + unit) * kUnitBytes;
  }
  /// Byte offset in a unit of the multiplier of row `row` of the tile.
  ATOM_HOST_DEVICE static int multiplier_offset(int row) {
    return row / kHalfTileRows * kHalfUnitBytes + kHalfUnitValueBytes + row % kHalfTileRows / 16 * 16 +
           row % 8 * 2 + row % 16 / 8;
  }

  /// Normal unit: row in [0, 128) of the tile, channel in [0, 128) of the group.
  ATOM_HOST_DEVICE static ValuePlace normal(int row, int channel) {
    const int step = channel / 32, high_k = channel / 16 % 2, t = channel / 4 % 4, j = channel % 4;
    // A register pair holds the rows g and g + 8; its word keeps row g in the low nibbles.
    const int word = step % 2 * 2 + high_k;
    return {fragment(row, t, step / 2) + word * 4 + j, row % 16 >= 8};
  }
  /// Outlier unit: row in [0, 128), channel in [0, 64) of the unit. Always a whole byte.
  ATOM_HOST_DEVICE static ValuePlace outlier(int row, int channel) {
    const int step = channel / 32, high_k = channel / 16 % 2, t = channel / 4 % 4, j = channel % 4;
    const int word = high_k * 2 + row % 16 / 8;
    return {fragment(row, t, step) + word * 4 + j, false};
  }

 private:
  ATOM_HOST_DEVICE static int fragment(int row, int t, int half) {
    return row / kHalfTileRows * kHalfUnitBytes + row % kHalfTileRows / 16 * 1024 + half * 512 +
           (row % 8 * 4 + t) * 16;
  }
};

/// Blocks and strides of quantized activations.
struct ActivationBlocks {
  static constexpr int kSumParts = 8;
  static constexpr int64_t kMostSummed = 1024;

  int64_t tokens = 0;
  int64_t groups = 0;
  int64_t n_outlier = 0;

  /// Rows that a block has: 16, 32, 64, 128, 256, then multiples of 256.
  ATOM_HOST_DEVICE static int64_t token_stride(int64_t tokens) {
    if (tokens > 128) return (tokens + 255) / 256 * 256;
    int64_t stride = 16;
    while (stride < tokens) stride *= 2;
    return stride;
  }
  ATOM_HOST_DEVICE int64_t stride() const { return token_stride(tokens); }
  ATOM_HOST_DEVICE int64_t outlier_blocks() const { return (n_outlier + kUnitChannels - 1) / kUnitChannels; }
  ATOM_HOST_DEVICE int64_t blocks() const { return groups + outlier_blocks(); }
  ATOM_HOST_DEVICE int64_t value_bytes() const { return blocks() * stride() * kUnitChannels; }
  /// Of scales and sums, 4 bytes each.
  ATOM_HOST_DEVICE int64_t scale_count() const { return (2 + kSumParts) * stride(); }
  /// Whether sums are kept; room for them there always is.
  ATOM_HOST_DEVICE bool summed() const { return tokens <= kMostSummed; }
  /// Index of channel [0, 128) of `block` of a token.
  ATOM_HOST_DEVICE int64_t value(int64_t token, int64_t block, int channel) const {
    const int64_t chunk = (channel / 16) ^ (token % 8);
    return (block * stride() + token) * kUnitChannels + chunk * 16 + channel % 16;
  }
  /// Indices in the scales of a token's unit and of its outlier multiplier.
  ATOM_HOST_DEVICE int64_t unit(int64_t token) const { return token; }
  ATOM_HOST_DEVICE int64_t outlier_multiplier(int64_t token) const { return stride() + token; }
  /// Of a part of its sum.
  ATOM_HOST_DEVICE int64_t sum(int64_t token, int part) const { return (2 + part) * stride() + token; }
};

}  // namespace atom::cuda
