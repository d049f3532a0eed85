#include "kernels/cuda/attention/config.h"

#include <algorithm>

#include "kernels/reference/attention.h"

namespace atom::cuda {
namespace {

/// Splitting costs a second launch and traffic through scratch memory: not beyond this.
constexpr int64_t kMaxExactScratch = int64_t{256} << 20;

/// The least work that pays for an item of the decode kernel.
constexpr int64_t kMinSplitKeys = 256;
/// Items are split until this share of the slots has work, or this many rounds of them are full.
constexpr double kGoodUse = 0.9;
constexpr int64_t kMaxRounds = 4;

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
  const int64_t whole = plan.column_tiles * shape.n_kv_heads * shape.n_sequences;
  const int64_t slots = int64_t{decode_blocks_per_sm(format)} * sm_count;
  // How busy the slots are over the rounds that equal parts take.
  const auto use = [&](int64_t splits) {
    const int64_t items = whole * splits;
    return static_cast<double>(items) / static_cast<double>(ceil_div(items, slots) * slots);
  };
  const int64_t most = std::max<int64_t>(1, ceil_div(shape.max_context, kMinSplitKeys));
  for (int64_t splits = 2; splits <= most && whole * splits <= kMaxRounds * slots; ++splits) {
    if (use(plan.splits) >= kGoodUse) break;
    if (use(splits) > use(plan.splits)) plan.splits = splits;
  }
  plan.items = whole * plan.splits;
  if (plan.splits > 1) {
    const int64_t floats = plan.items * kDecodeColumns * (shape.head_dim + 4);
    plan.scratch_bytes = static_cast<size_t>(floats) * sizeof(float);
  }
  return plan;
}

}  // namespace atom::cuda
