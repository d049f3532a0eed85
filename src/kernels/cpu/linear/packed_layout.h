#pragma once

#include <cstdint>

#include "kernels/quantized.h"

namespace atom {

/// Where the elements of a low-bit weight lie in the layouts rows8_avx2 (rows = 8) and rows16_avx512 (rows =
/// 16).
///
/// Output rows are taken in blocks of `rows`; the last block is padded with zeros. A block holds, for each
/// group of normal channels, ceil(length / 8) chunks of 4 * rows bytes: byte 4 * r + i of a chunk has channel
/// i of row r in its low nibble and channel 4 + i in its high one, both as w + 8, so that one 32-bit lane is
/// four channels of a row and the nibbles are unsigned. Channels that pad a group hold 0, hence add nothing
/// whatever they meet.
///
/// values          [blocks, chunks, rows * 4] bytes
/// scales          [blocks, groups, rows] fp16
/// outliers        [blocks, ceil(n_outlier / 4), rows, 4] bytes w + 128
/// outlier_scales  [blocks, rows] fp16
/// outliers_fp16   [blocks, n_outlier, rows] fp16
struct PackedLayout {
  int64_t rows = 0;
  int64_t blocks = 0;
  int64_t groups = 0;
  int64_t group = 0;
  int64_t chunks_per_group = 0;
  /// Chunks of a whole block of rows.
  int64_t chunks = 0;
  int64_t n_outlier = 0;
  int64_t outlier_quads = 0;

  PackedLayout(int64_t rows_, int64_t n, const ChannelLayout& layout)
      : rows(rows_),
        blocks((n + rows_ - 1) / rows_),
        groups(layout.groups()),
        group(groups == 1 ? layout.k_normal() : layout.group),
        n_outlier(layout.n_outlier),
        outlier_quads((layout.n_outlier + 3) / 4) {
    if (groups == 0) return;
    chunks_per_group = (group + 7) / 8;
    const int64_t last = layout.k_normal() - (groups - 1) * group;
    chunks = (groups - 1) * chunks_per_group + (last + 7) / 8;
  }

  /// Whether four neighbouring channels never belong to two groups, and none is FP8.
  static bool fits(const ChannelLayout& layout) {
    return (layout.groups() <= 1 || layout.group % 4 == 0) && layout.outlier_type != OutlierType::fp8;
  }

  /// Rows of a block, 0 for the canonical layout.
  static int64_t rows_of(WeightLayout layout) {
    return layout == WeightLayout::rows8_avx2 ? 8 : layout == WeightLayout::rows16_avx512 ? 16 : 0;
  }

  int64_t block_bytes() const { return chunks * rows * 4; }

  /// Byte of normal channel k of `row`; the nibble is the low one where in_low_nibble(k).
  int64_t value_byte(int64_t row, int64_t k) const {
    const int64_t in_group = k % group;
    const int64_t chunk = k / group * chunks_per_group + in_group / 8;
    return (row / rows * chunks + chunk) * rows * 4 + row % rows * 4 + in_group % 4;
  }
  bool in_low_nibble(int64_t k) const { return k % group % 8 < 4; }

  int64_t scale(int64_t row, int64_t g) const { return (row / rows * groups + g) * rows + row % rows; }

  int64_t outlier(int64_t row, int64_t k) const {
    return ((row / rows * outlier_quads + k / 4) * rows + row % rows) * 4 + k % 4;
  }
  int64_t outlier_fp16(int64_t row, int64_t k) const {
    return (row / rows * n_outlier + k) * rows + row % rows;
  }
};

}  // namespace atom
