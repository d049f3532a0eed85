#include "kernels/reference/logits.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "kernels/cpu/fused_tokens.h"

namespace atom::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void mask_row(float* logits, int64_t vocab, const uint32_t* mask) {
  for (int64_t begin = 0; begin < vocab; begin += 32) {
    const uint32_t word = mask[begin / 32];
    if (word == ~uint32_t{0}) continue;
    const int64_t end = std::min<int64_t>(begin + 32, vocab);
    for (int64_t i = begin; i < end; ++i) {
      if ((word >> (i - begin) & 1) == 0) logits[i] = -kInfinity;
    }
  }
}

/// The k best columns of a row so far, best first.
struct Top {
  int64_t k;
  int32_t* columns;
  float* values;
  int64_t count = 0;

  /// What a column behind all those seen has to exceed to be among them.
  float bar() const { return count < k ? -kInfinity : values[k - 1]; }

  void insert(int32_t column, float value) {
    int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && value > values[at - 1]; --at) {
      columns[at] = columns[at - 1];
      values[at] = values[at - 1];
    }
    columns[at] = column;
    values[at] = value;
  }
};

/// Whether any of n values lies above `bar`; without a branch for each, so that compilers take vectors.
bool any_above(const float* x, int64_t n, float bar) {
  int above = 0;
  for (int64_t i = 0; i < n; ++i) above |= static_cast<int>(x[i] > bar);
  return above != 0;
}

void top_of_row(const float* x, int64_t vocab, Top top) {
  // Nearly all blocks hold nothing better than what has been found before.
  constexpr int64_t kBlock = 64;
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, vocab);
    if (!any_above(x + begin, end - begin, top.bar())) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (x[i] > top.bar() && std::isfinite(x[i])) top.insert(static_cast<int32_t>(i), x[i]);
    }
  }
  std::fill(top.columns + top.count, top.columns + top.k, -1);
  std::fill(top.values + top.count, top.values + top.k, -kInfinity);
}

}  // namespace

void change_logits(const DeviceContext& device, const ChangeLogits& op) {
  const int64_t vocab = op.logits.cols, words = (vocab + 31) / 32;
  assert(static_cast<int64_t>(op.first.size()) == op.logits.rows + 1);
  assert(static_cast<int64_t>(op.mask_of.size()) == op.logits.rows);
  for_each_token_range(device, op.logits.rows, vocab, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      float* logits = op.logits.row(t);
      for (int32_t i = op.first[row]; i < op.first[row + 1]; ++i) {
        const LogitChange& change = op.changes[static_cast<size_t>(i)];
        assert(change.token >= 0 && change.token < vocab);
        logits[change.token] = sampling::changed(logits[change.token], change);
      }
      if (op.mask_of[row] >= 0) mask_row(logits, vocab, op.masks.data() + op.mask_of[row] * words);
    }
  });
}

void top_columns(const DeviceContext& device, const TopColumns& op) {
  assert(op.k >= 1 && op.k <= kMaxTopColumns);
  assert(static_cast<int64_t>(op.columns.size()) == op.x.rows * op.k &&
         op.values.size() == op.columns.size());
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      top_of_row(op.x.row(t), op.x.cols, {op.k, op.columns.data() + t * op.k, op.values.data() + t * op.k});
    }
  });
}

}  // namespace atom::reference
