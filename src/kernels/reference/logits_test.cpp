#include "kernels/reference/logits.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/fused_test_support.h"

// ChangeLogits and TopColumns against brute force.
namespace atom::reference {
namespace {

using namespace fused_test;

/// The k best columns by sorting all of them.
std::vector<std::pair<int32_t, float>> sorted_top(const float* x, int64_t vocab, int64_t k) {
  std::vector<std::pair<int32_t, float>> all;
  for (int64_t i = 0; i < vocab; ++i) {
    if (std::isfinite(x[i])) all.emplace_back(static_cast<int32_t>(i), x[i]);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  all.resize(static_cast<size_t>(k), {-1, -INFINITY});
  return all;
}

void expect_top(const MatrixView<const float>& x, int64_t k, ThreadPool* pool = nullptr) {
  const auto count = static_cast<size_t>(x.rows * k);
  std::vector<int32_t> columns(count, -7);
  std::vector<float> values(count, 7.0f);
  run(DeviceContext{.pool = pool}, TopColumns{x, k, columns, values});
  for (int64_t t = 0; t < x.rows; ++t) {
    const auto expected = sorted_top(x.row(t), x.cols, k);
    for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
      const size_t at = static_cast<size_t>(t * k) + i;
      ASSERT_EQ(columns[at], expected[i].first) << "row " << t << " of " << x.cols << ", place " << i;
      ASSERT_TRUE(same_bits(values[at], expected[i].second)) << "row " << t << ", place " << i;
    }
  }
}

TEST(TopColumns, EqualsASort) {
  Random random(1);
  for (const Kind kind : kKinds) {
    for (const int64_t vocab : {1, 2, 31, 32, 33, 63, 64, 65, 1000, 4099}) {
      const Matrix<float> x = random_matrix(random, 3, vocab, kind);
      for (const int64_t k : {1, 2, 5, 20, 32}) expect_top(x.view(), k);
    }
  }
}

TEST(TopColumns, AscendingDescendingAndEqualRows) {
  std::vector<float> x(500);
  std::iota(x.begin(), x.end(), -250.0f);
  expect_top({x.data(), 1, 500}, 32);
  std::reverse(x.begin(), x.end());
  expect_top({x.data(), 1, 500}, 32);
  std::fill(x.begin(), x.end(), -3.0f);
  expect_top({x.data(), 1, 500}, 32);
}

TEST(TopColumns, WhatIsNotFiniteIsPassedOver) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(200, bad);
    expect_top({x.data(), 1, 200}, 5);
    x[7] = -1e38f;
    x[150] = 3.0f;
    expect_top({x.data(), 1, 200}, 5);
    expect_top({x.data(), 1, 200}, 1);
  }
}

TEST(TopColumns, StridedRowsThreadsAndNoRows) {
  Random random(2);
  ThreadPool pool(3);
  const Matrix<float> wide = random_matrix(random, 70, 1031, Kind::ties);
  expect_top(wide.view().col_range(5, 1006), 7);
  expect_top(wide.view().col_range(5, 1006), 7, &pool);
  expect_top({nullptr, 0, 100}, 3);
}

/// Changes of some rows, masks of some others.
struct Changes {
  std::vector<int32_t> first{0};
  std::vector<LogitChange> changes;
  std::vector<int32_t> mask_of;
  std::vector<uint32_t> masks;

  ChangeLogits op(const MatrixView<float>& logits) const { return {logits, first, changes, mask_of, masks}; }

  /// By every column of every row.
  void expect(const MatrixView<const float>& before, const MatrixView<const float>& after) const {
    const int64_t words = (before.cols + 31) / 32;
    for (int64_t t = 0; t < before.rows; ++t) {
      const auto row = static_cast<size_t>(t);
      for (int64_t i = 0; i < before.cols; ++i) {
        float expected = before(t, i);
        for (int32_t c = first[row]; c < first[row + 1]; ++c) {
          const LogitChange& change = changes[static_cast<size_t>(c)];
          if (change.token != i) continue;
          expected = expected > 0 ? expected / change.divisor : expected * change.divisor;
          expected += change.bias;
        }
        if (mask_of[row] >= 0 &&
            (masks[static_cast<size_t>(mask_of[row] * words + i / 32)] >> (i % 32) & 1) == 0) {
          expected = -INFINITY;
        }
        ASSERT_TRUE(same_bits(after(t, i), expected)) << t << ' ' << i << ": " << after(t, i) << ", expected "
                                                      << expected << ", before " << before(t, i);
      }
    }
  }
};

Changes random_changes(Random& random, int64_t rows, int64_t vocab) {
  constexpr int64_t kMasks = 4;  // none, all, random ones
  const int64_t words = (vocab + 31) / 32;
  Changes c;
  for (int64_t i = 0; i < kMasks * words; ++i) {
    c.masks.push_back(i < words       ? 0
                      : i < 2 * words ? ~uint32_t{0}
                                      : static_cast<uint32_t>(random.next() & random.next()));
  }
  for (int64_t t = 0; t < rows; ++t) {
    const uint64_t n = t % 3 == 0 ? 0 : random.below(20);
    for (uint64_t i = 0; i < n; ++i) {
      c.changes.push_back({static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab))),
                           random.below(2) == 0 ? 1.0f : 1.3f, random.below(2) == 0 ? 0.0f : normal(random)});
    }
    c.first.push_back(static_cast<int32_t>(c.changes.size()));
    c.mask_of.push_back(static_cast<int32_t>(random.below(kMasks + 1)) - 1);
  }
  return c;
}

TEST(ChangeLogits, EqualsBruteForce) {
  Random random(3);
  ThreadPool pool(3);
  for (const Kind kind : kKinds) {
    for (const int64_t vocab : {1, 2, 31, 32, 33, 100, 3001}) {
      const Matrix<float> before = random_matrix(random, 30, vocab + 3, kind);
      const Changes c = random_changes(random, 30, vocab);
      for (ThreadPool* threads : {static_cast<ThreadPool*>(nullptr), &pool}) {
        Matrix<float> after(30, vocab + 3);
        std::copy(before.span().begin(), before.span().end(), after.span().begin());
        run(DeviceContext{.pool = threads}, c.op(after.view().col_range(2, vocab + 2)));
        c.expect(before.view().col_range(2, vocab + 2), after.view().col_range(2, vocab + 2));
        // Nothing beside the columns.
        for (int64_t t = 0; t < 30; ++t) {
          for (const int64_t i : {int64_t{0}, int64_t{1}, vocab + 2})
            ASSERT_TRUE(same_bits(after(t, i), before(t, i)));
        }
      }
    }
  }
}

TEST(ChangeLogits, PenaltyThenBiasThenTheNextChangeThenTheMask) {
  std::vector<float> logits = {4.0f, -4.0f, 4.0f, 1.0f};
  const Changes c{{0, 3}, {{0, 2.0f, 0.5f}, {1, 2.0f, 0.5f}, {0, 1.0f, -3.0f}}, {0}, {0b1011}};
  run(DeviceContext{}, c.op({logits.data(), 1, 4}));
  EXPECT_EQ(logits, (std::vector<float>{-0.5f, -7.5f, -INFINITY, 1.0f}));
}

}  // namespace
}  // namespace atom::reference
