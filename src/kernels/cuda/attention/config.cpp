#include "kernels/cuda/attention/config.h"

#include <algorithm>

#include "kernels/reference/attention.h"

namespace atom::cuda {
namespace {

/// Splitting costs a second launch and traffic through scratch memory: not beyond this.
constexpr int64_t kMaxExactScratch = int64_t{256} << 20;

/// A model of the decode kernel in units of the time that a warp takes for a stage when memory is the limit.
/// Before its first keys a block waits for its sequence, then for the table of blocks; parts are written and
/// read, and merged.
constexpr double kBlockStart = 1.0;
constexpr double kMerge = 0.75;
constexpr double kMergePart = 1.0 / 64;
constexpr int64_t kMaxSplits = 256;
/// With so many rounds of int4, and so many stages a warp, blocks of an SM that begin together end together
/// for a while, and memory waits for the next ones. Formats of more bytes keep it busy with fewer blocks.
constexpr int64_t kStaggeredRounds = 3;
constexpr double kStaggeredStages = 16;
constexpr int kStaggerCycles = 3000;

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

ExactPlan plan_exact(const AttentionShape& shape, int sm_count) {
  ExactPlan plan;
  const int64_t rows = shape.max_rows * shape.group();
  plan.padded_dim = shape.head_dim <= 64 ? 64 : (shape.head_dim <= 128 ? 128 : 256);
  // Heads of more than 128 channels would not leave room in shared memory.
  plan.rows = rows <= 16 || plan.padded_dim == 256 ? 8 : 32;
  plan.row_tiles = ceil_div(rows, plan.rows);
  plan.segments = std::max<int64_t>(1, ceil_div(shape.max_context, kAttentionSegment));
  const int64_t blocks = plan.row_tiles * shape.n_kv_heads * shape.n_sequences;
  const int64_t floats = shape.n_sequences * shape.max_rows * shape.n_heads * plan.segments *
                         (kExactPartialHeader + shape.head_dim);
  const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
  plan.split = plan.segments > 1 && blocks < int64_t{4} * sm_count && bytes <= kMaxExactScratch;
  if (plan.split) plan.scratch_bytes = static_cast<size_t>(bytes);
  return plan;
}

int64_t max_decode_rows(const AttentionShape& shape) {
  return std::max<int64_t>(1, 16 / shape.group());
}

DecodePlan plan_decode(const AttentionShape& shape, KvFormat format, int sm_count) {
  DecodePlan plan;
  const int64_t rows = std::min(shape.max_rows, max_decode_rows(shape));
  plan.column_tiles = ceil_div(rows * shape.group(), kDecodeColumns);
  plan.tiles = plan.column_tiles * shape.n_kv_heads;
  plan.n_sequences = shape.n_sequences;
  const int64_t whole = plan.tiles * plan.n_sequences;
  const int all_warps = decode_warps_per_sm(format);
  const int64_t most =
      std::min(kMaxSplits, std::max<int64_t>(1, ceil_div(shape.max_context, kDecodeSplitUnit)));
  double least = 0.0;
  for (const int warps : {4, all_warps}) {
    const int64_t slots = all_warps / warps * int64_t{sm_count};
    for (int64_t splits = 1; splits <= most; ++splits) {
      if (splits > 1 && whole * splits > kAttentionParts) break;
      const int64_t keys = ceil_div(shape.max_context, splits * kDecodeSplitUnit) * kDecodeSplitUnit;
      const auto stages = static_cast<double>(ceil_div(keys, decode_stage_keys(format) * warps));
      const auto rounds = static_cast<double>(ceil_div(whole * splits, slots));
      double time = rounds * (kBlockStart + stages);
      if (splits > 1) time += kMerge + kMergePart * static_cast<double>(splits);
      if (least > 0.0 && time >= least) continue;
      least = time;
      plan.splits = splits;
      plan.warps = warps;
      const bool staggers = format == KvFormat::int4 && warps < all_warps && stages >= kStaggeredStages &&
                            whole * splits >= kStaggeredRounds * slots;
      plan.stagger = staggers ? kStaggerCycles : 0;
    }
  }
  return plan;
}

}  // namespace atom::cuda
