#pragma once

#include <cstdint>

#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/attention/fast_params.h"
#include "kernels/kv_view.h"
#include "kernels/ops.h"

/// Shapes and work items of the decode kernel (decode_kernel.cuh), and in which order its operands have the
/// channels.
namespace atom::cuda {

struct DecodeParams : FastParams {
  int max_rows;
  int column_tiles;
  int splits;
  /// Of DecodePlan, and how many SMs there are.
  int stagger;
  int sm_count;
  /// [sequences, KV heads * column_tiles, splits, 8 columns, 4 + head_dim]: maximum, sum, then, from the
  /// fourth on, weighted values. All bits are set between launches.
  float* parts;
};

namespace decode {

template <KvFormat kFormat, int kDim, int kWarps>
struct Shape {
  static constexpr int kThreads = kWarps * 32;
  static constexpr bool kQuantized = is_quantized(kFormat);
  static constexpr int kRowBytes = kDim * bits_of(kFormat) / 8;
  /// 16-byte chunks of a row.
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kKeys = decode_stage_keys(kFormat);
  static constexpr int kMatrixBytes = kKeys * kRowBytes;
  static constexpr int kStageBytes = 2 * kMatrixBytes + (kQuantized ? kKeys * 8 : 0);
  static constexpr int kStages = kDim == 128 ? 3 : 6;
  static constexpr int kBlocksPerSm = decode_warps_per_sm(kFormat) / kWarps;
  static constexpr int kRingBytes = kWarps * kStages * kStageBytes;
  /// Stages whose pages one load of a block number by every lane covers.
  static constexpr int kPageStages = 32 / (kKeys / 8);
  /// Byte offset of a chunk in its matrix, swizzled so that 8 rows of one chunk lie in different banks.
  __device__ static int offset(int row, int chunk) {
    constexpr int kRowsPerLine = kChunks >= 8 ? 1 : 8 / kChunks;
    constexpr int kMask = (kChunks < 8 ? kChunks : 8) - 1;
    return row * kRowBytes + ((chunk ^ (row / kRowsPerLine & kMask)) * 16);
  }
};

/// Keys in each part of a context.
__device__ inline int split_keys(int context, int splits) {
  if (splits == 1) return context;
  const int unit = splits * kDecodeSplitUnit;
  return (context + unit - 1) / unit * kDecodeSplitUnit;
}

/// Parts of a context that are not empty.
__device__ inline int n_splits(int context, int splits) {
  if (splits == 1) return 1;
  const int per_split = split_keys(context, splits);
  return (context + per_split - 1) / per_split;
}

/// Lane t of four has channels (4 i + t) * query_run() and on of a query, for all i.
constexpr int query_run(KvFormat format) {
  return format == KvFormat::int4 ? 8 : (format == KvFormat::int8 ? 4 : 2);
}

/// Where a lane finds the pair of half `half` of the B fragment of step `step`: in which of its runs, at
/// `first` and `first` + `stride`.
struct QueryPlace {
  int run;
  int first;
  int stride;
};
template <KvFormat kFormat>
__device__ constexpr QueryPlace query_place(int step, int half) {
  if (kFormat == KvFormat::int4) return {step / 2, 2 * (step % 2) + half, 4};
  if (kFormat == KvFormat::int8) return {step, 2 * half, 1};
  return {2 * step + half, 0, 1};
}

/// Row g + 8 h of output tile i is value 2 i + h of a lane: so many of them, from multiples of it on, are
/// channels in a row, the first of which is output_channel().
constexpr int output_run(KvFormat format) {
  return format == KvFormat::int4 ? 4 : (format == KvFormat::int8 ? 2 : 1);
}
template <KvFormat kFormat>
__device__ inline int output_channel(int value, int g) {
  return 8 * value + output_run(kFormat) * g;
}

/// What a query value is multiplied by: nibbles in the upper half of a byte arrive times 16.
template <KvFormat kFormat>
__device__ constexpr float query_factor(int half) {
  return kFormat == KvFormat::int4 ? (half == 0 ? 4.0f : 0.25f) : 1.0f;
}
template <KvFormat kFormat>
constexpr float kScoreFactor = kFormat == KvFormat::int4 ? 0x1p22f
                                                         : (kFormat == KvFormat::int8 ? 0x1p24f : 1.0f);
template <KvFormat kFormat>
__device__ constexpr float output_factor(int row_half) {
  if (kFormat == KvFormat::f16) return 1.0f;
  return kFormat == KvFormat::int4 && row_half == 1 ? 0x1p20f : 0x1p24f;
}

/// A column tile of one KV head of one sequence, and a part of its keys.
struct Item {
  int64_t first_row;
  const int32_t* blocks;
  int n_rows;
  int context;
  int kv_head;
  int first_column;
  int begin;
  int end;
  /// Stages of this warp.
  int n_stages;
};

/// The work of this block, blockIdx = (part, tile, sequence); empty (end <= begin) where the sequence is for
/// another kernel, or too short.
template <int kKeys, int kWarps>
__device__ inline Item own_item(const DecodeParams& p, int warp) {
  const int split = static_cast<int>(blockIdx.x);
  const int tile = static_cast<int>(blockIdx.y);
  const SequenceSpan& sequence = p.sequences[blockIdx.z];
  Item item;
  item.first_row = sequence.first_row;
  item.blocks = sequence.blocks;
  item.n_rows = static_cast<int>(sequence.n_rows);
  item.context = static_cast<int>(sequence.context);
  item.kv_head = tile / p.column_tiles;
  item.first_column = tile % p.column_tiles * kDecodeColumns;
  const int per_split = split_keys(item.context, p.splits);
  item.begin = split * per_split;
  item.end = min(item.begin + per_split, item.context);
  if (item.n_rows > p.max_rows || item.first_column >= item.n_rows * p.group) item.end = item.begin;
  const int n_all = (item.end - item.begin + kKeys - 1) / kKeys;
  item.n_stages = max(0, (n_all - warp + kWarps - 1) / kWarps);
  return item;
}

}  // namespace decode
}  // namespace atom::cuda
