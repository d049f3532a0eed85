#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_view.h"

/// What the host chooses for the attention kernels, from upper bounds of the shapes alone. Plain integers, so
/// that it is tested without a GPU.
namespace atom::cuda {

struct AttentionShape {
  int64_t n_sequences = 0;
  int64_t max_rows = 0;
  int64_t max_context = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;

  int64_t group() const { return n_heads / n_kv_heads; }
};

/// The exact kernel: blocks of `rows` query rows (token and head of one KV head), channels padded to
/// `padded_dim`. `split`: every segment of 512 keys is a block of its own, and a second kernel merges them in
/// order.
struct ExactPlan {
  int rows = 32;
  int padded_dim = 64;
  bool split = false;
  int64_t row_tiles = 1;
  int64_t segments = 1;
  size_t scratch_bytes = 0;
};

ExactPlan plan_exact(const AttentionShape& shape, int sm_count);

/// Floats that a split segment keeps for a row: its maximum, 16 sums (from the fourth float on) and head_dim
/// weighted values.
constexpr int64_t kExactPartialHeader = 20;

constexpr int kDecodeColumns = 8;

/// Items of the decode kernel at most, where sequences are split, and floats of each: columns, their maximum,
/// sum and, from the fourth float on, up to 128 weighted values.
constexpr int64_t kAttentionParts = 8192;
constexpr int64_t kAttentionPartFloats = int64_t{kDecodeColumns} * (4 + 128);

/// The decode kernel. An item is 8 columns (row and head) of one KV head of one sequence and one of `splits`
/// parts of its keys; a block of `warps` warps has one. The blocks of the last parts merge all, a
/// column each.
struct DecodePlan {
  int64_t column_tiles = 1;
  /// KV heads * column_tiles.
  int64_t tiles = 0;
  int64_t n_sequences = 0;
  int64_t splits = 1;
  int64_t items() const { return n_sequences * tiles * splits; }
  int warps = 4;
  /// Cycles by which each of the first blocks of an SM begins after the one before.
  int stagger = 0;
};

/// Parts of a sequence's keys begin at multiples of this many.
constexpr int kDecodeSplitUnit = 128;

/// Keys that a warp of the decode kernel takes at a time.
constexpr int decode_stage_keys(KvFormat format) {
  return is_quantized(format) ? 32 : 16;
}

/// Warps of the decode kernel that an SM holds at once, in blocks of 4 or of all of them.
constexpr int decode_warps_per_sm(KvFormat format) {
  return format == KvFormat::int4 ? 16 : 8;
}

/// Sequences of up to this many rows go to the decode kernel, longer ones to the prefill kernel.
int64_t max_decode_rows(const AttentionShape& shape);

DecodePlan plan_decode(const AttentionShape& shape, KvFormat format, int sm_count);

}  // namespace atom::cuda
