#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/attention_testing.h"
#include "kernels/reference/attention.h"

namespace atom {
namespace {

using testing::AttentionBatch;
using testing::AttentionShape;

constexpr KvFormat kFormats[] = {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4};

/// The vectorized implementations that this processor can run on `batch`.
std::vector<const char*> vector_levels(AttentionBatch& batch) {
  std::vector<const char*> names;
  for (const auto& implementation : implementations<Attention>()) {
    if (std::strcmp(implementation.name, "reference") == 0) continue;
    if (implementation.supports({nullptr, detect_cpu_isa()}, batch.op()))
      names.push_back(implementation.name);
  }
  return names;
}

std::string describe(const AttentionShape& shape) {
  return fmt::format("{} head_dim {} kv_heads {} group {} block {} window {}", name_of(shape.format),
                     shape.head_dim, shape.n_kv_heads, shape.group, shape.block_size, shape.window);
}

/// Bits of `a` and `b` are the same.
::testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size())
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " values";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "value " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

std::vector<double> read_row(const KvLayerView& view, const std::byte* data, const uint16_t* params,
                             int64_t row) {
  std::vector<double> out;
  const std::byte* bytes = data + row * view.row_bytes();
  for (int64_t d = 0; d < view.head_dim; ++d) {
    if (view.format == KvFormat::f32) {
      float x;
      std::memcpy(&x, bytes + d * 4, sizeof x);
      out.push_back(x);
    } else if (view.format == KvFormat::f16) {
      uint16_t x;
      std::memcpy(&x, bytes + d * 2, sizeof x);
      out.push_back(half_to_float(x));
    } else {
      const double scale = half_to_float(params[row * 2]);
      const double minimum = half_to_float(params[row * 2 + 1]);
      const int byte = static_cast<int>(bytes[view.format == KvFormat::int8 ? d : d / 2]);
      const int q = view.format == KvFormat::int8 ? byte : (d % 2 == 0 ? byte & 15 : byte >> 4);
      out.push_back(q * scale + minimum);
    }
  }
  return out;
}

/// Over keys [first, end).
void naive_row(const float* q, const std::vector<std::vector<double>>& keys,
               const std::vector<std::vector<double>>& values, int64_t first, int64_t end, double scale,
               double* out) {
  const size_t head_dim = keys[0].size();
  const auto begin = static_cast<size_t>(first);
  std::vector<double> scores;
  for (size_t t = begin; t < static_cast<size_t>(end); ++t) {
    double score = 0;
    for (size_t d = 0; d < head_dim; ++d) score += static_cast<double>(q[d]) * keys[t][d];
    scores.push_back(score * scale);
  }
  const double maximum = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - maximum);
  for (size_t d = 0; d < head_dim; ++d) {
    out[d] = 0;
    for (size_t t = 0; t < scores.size(); ++t) out[d] += scores[t] / sum * values[begin + t][d];
  }
}

/// Softmax attention in double, straight from its definition.
std::vector<double> naive(AttentionBatch& batch) {
  const Attention op = batch.op();
  const KvLayerView& view = op.cache;
  const int64_t group = op.n_heads / view.n_kv_heads;
  std::vector<double> out(static_cast<size_t>(op.q.rows * op.q.cols));
  for (const SequenceSpan& span : op.sequences) {
    for (int64_t kv_head = 0; kv_head < view.n_kv_heads; ++kv_head) {
      std::vector<std::vector<double>> keys;
      std::vector<std::vector<double>> values;
      for (int64_t t = 0; t < span.context; ++t) {
        const int64_t row = view.row_index(span.blocks[t / view.block_size], kv_head, t % view.block_size);
        keys.push_back(read_row(view, view.keys, view.key_params, row));
        values.push_back(read_row(view, view.values, view.value_params, row));
      }
      for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
        for (int64_t r = 0; r < span.n_rows; ++r) {
          const int64_t visible = span.context - span.n_rows + r + 1;
          const int64_t first = op.window > 0 ? std::max<int64_t>(visible - op.window, 0) : 0;
          naive_row(op.q.row(span.first_row + r) + h * view.head_dim, keys, values, first, visible,
                    static_cast<double>(op.scale),
                    out.data() + (span.first_row + r) * op.q.cols + h * view.head_dim);
        }
      }
    }
  }
  return out;
}

double largest_error(const std::vector<float>& got, const std::vector<double>& expected) {
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(static_cast<double>(got[i]) - expected[i]);
    error = e >= error ? e : (std::isnan(e) ? std::numeric_limits<double>::infinity() : error);
  }
  return error;
}

/// The reference is near the definition, and every vector level equals the reference; with 2 threads too
/// where `pool` is given.
void check(AttentionBatch& batch, double tolerance = 2e-5, ThreadPool* pool = nullptr) {
  SCOPED_TRACE(describe(batch.shape()));
  const std::vector<float> expected = batch.run("reference", {nullptr, CpuIsa::reference});
  EXPECT_LT(largest_error(expected, naive(batch)), tolerance);
  if (pool != nullptr) {
    EXPECT_TRUE(same_bits(expected, batch.run("reference", {pool, CpuIsa::reference})));
  }
  for (const char* level : vector_levels(batch)) {
    SCOPED_TRACE(level);
    EXPECT_TRUE(same_bits(expected, batch.run(level, {nullptr, detect_cpu_isa()})));
    if (pool != nullptr) {
      EXPECT_TRUE(same_bits(expected, batch.run(level, {pool, detect_cpu_isa()})));
    }
  }
}

TEST(Attention, LevelsTested) {
  std::string levels = "reference";
  AttentionBatch any({}, {1}, {1});
  for (const char* level : vector_levels(any)) levels += std::string(" ") + level;
  std::printf("levels compared bit for bit on this processor: %s\n", levels.c_str());
  EXPECT_STREQ(implementations<Attention>().back().name, "reference");
}

TEST(Attention, SelectionFollowsIsaAndShape) {
  AttentionBatch batch({}, {5}, {1});
  AttentionBatch odd({KvFormat::f16, 72}, {5}, {1});
  EXPECT_STREQ(select<Attention>({nullptr, CpuIsa::reference}, batch.op()).name, "reference");
#if defined(__x86_64__)
  EXPECT_STREQ(select<Attention>({nullptr, CpuIsa::avx2}, batch.op()).name, "avx2");
  EXPECT_STREQ(select<Attention>({nullptr, CpuIsa::avx512vnni}, batch.op()).name, "avx512");
#endif
  EXPECT_STREQ(select<Attention>({nullptr, CpuIsa::avx512vnni}, odd.op()).name, "reference");
}

TEST(Attention, AllFormatsHeadDimsGroupsAndBlockSizes) {
  for (const KvFormat format : kFormats) {
    for (const int64_t head_dim : {16, 64, 80, 128}) {
      for (const int64_t group : {1, 2, 3, 4, 8}) {
        for (const int64_t block_size : {1, 16, 32}) {
          AttentionBatch batch({format, head_dim, 2, group, block_size}, {70, 1, 129}, {3, 1, 1});
          check(batch);
        }
      }
    }
  }
}

TEST(Attention, ReferenceTakesOtherHeadDims) {
  for (const KvFormat format : kFormats) {
    AttentionBatch batch({format, 6, 2, 2, 4}, {70}, {70});
    check(batch);
  }
}

TEST(Attention, EveryContextTo300) {
  for (const KvFormat format : kFormats) {
    std::vector<int64_t> contexts;
    std::vector<int64_t> ones;
    for (int64_t c = 1; c <= 300; ++c) {
      contexts.push_back(c);
      ones.push_back(1);
    }
    AttentionBatch batch({format, 64, 1, 3, 16}, contexts, ones);
    check(batch);
  }
}

TEST(Attention, SegmentBoundaries) {
  ThreadPool pool(2);
  for (const KvFormat format : kFormats) {
    AttentionBatch decode({format, 64, 1, 3, 16}, {511, 512, 513, 1024, 1025, 2048}, {1, 1, 1, 1, 1, 1});
    check(decode, 2e-5, &pool);
    AttentionBatch chunks({format, 64, 1, 3, 16}, {515, 1030, 577}, {8, 12, 130});
    check(chunks, 2e-5, &pool);
  }
}

/// Windows on both sides of the sizes of tiles, segments and blocks of rows; some keys, whole tiles and whole
/// segments are before them.
TEST(Attention, Windows) {
  ThreadPool pool(3);
  for (const KvFormat format : kFormats) {
    for (const int64_t window : {1, 15, 64, 65, 130, 513}) {
      const AttentionShape shape{format, 16, 1, 3, 16, 1.0f, window};
      AttentionBatch batch(shape, {1, window, 330, 1100, 1400}, {1, 1, 330, 3, 1});
      check(batch, 2e-5, &pool);
    }
  }
}

TEST(Attention, WindowOfTheContextIsNone) {
  const std::vector<int64_t> contexts{600, 33};
  AttentionBatch whole({KvFormat::int4, 64, 2, 3, 16}, contexts, {40, 33});
  AttentionBatch windowed({KvFormat::int4, 64, 2, 3, 16, 1.0f, 600}, contexts, {40, 33});
  const DeviceContext device{nullptr, detect_cpu_isa()};
  for (const auto& implementation : implementations<Attention>()) {
    if (!implementation.supports(device, whole.op())) continue;
    EXPECT_TRUE(same_bits(whole.run(implementation.name, device), windowed.run(implementation.name, device)));
  }
}

/// Rows of `whole`, prefilled at once, equal those of every chunking, at every level.
TEST(Attention, ChunkingChangesNothing) {
  Random random(7);
  for (const KvFormat format : kFormats) {
    const AttentionShape shape{format, 64, 2, 3, 16, 1.0f, format == KvFormat::f16 ? 200 : 0};
    constexpr int64_t kTokens = 700;
    AttentionBatch whole(shape, {kTokens}, {kTokens});
    for (const char* level : vector_levels(whole)) {
      SCOPED_TRACE(describe(shape) + " " + level);
      const DeviceContext device{nullptr, detect_cpu_isa()};
      const std::vector<float> expected = whole.run(level, device);
      for (int round = 0; round < 4; ++round) {
        int64_t done = 0;
        while (done < kTokens) {
          const auto longest = static_cast<uint64_t>(round == 0 ? 1 : round == 1 ? 70 : 400);
          const int64_t n =
              std::min<int64_t>(kTokens - done, 1 + static_cast<int64_t>(random.below(longest)));
          done += n;
          if (round == 0 && done % 37 != 0) continue;  // token by token: a sample
          AttentionBatch chunk(shape, {done}, {n}, static_cast<uint64_t>(done));
          const std::vector<float> got = chunk.run(level, device);
          const auto begin = expected.begin() + (done - n) * whole.row_width();
          ASSERT_TRUE(same_bits({begin, begin + n * whole.row_width()}, got))
              << "tokens " << done - n << " to " << done;
        }
      }
    }
  }
}

TEST(Attention, TokenByTokenEqualsPrefill) {
  const AttentionShape shape{KvFormat::int4, 64, 1, 3, 16};
  AttentionBatch whole(shape, {600}, {600});
  for (const auto& implementation : implementations<Attention>()) {
    const DeviceContext device{nullptr, detect_cpu_isa()};
    if (!implementation.supports(device, whole.op())) continue;
    const std::vector<float> expected = whole.run(implementation.name, device);
    std::vector<int64_t> contexts;
    for (int64_t c = 1; c <= 600; c += std::strcmp(implementation.name, "reference") == 0 ? 13 : 1) {
      AttentionBatch row(shape, {c}, {1});
      const auto begin = expected.begin() + (c - 1) * whole.row_width();
      ASSERT_TRUE(same_bits({begin, begin + whole.row_width()}, row.run(implementation.name, device)))
          << implementation.name << " token " << c;
    }
  }
}

TEST(Attention, BatchAndPageOrderChangeNothing) {
  Random random(3);
  ThreadPool pool(2);
  for (const KvFormat format : kFormats) {
    for (int round = 0; round < 3; ++round) {
      const AttentionShape shape{format, 64, 3, 3, round == 0 ? 1 : 16};
      std::vector<int64_t> contexts;
      std::vector<int64_t> rows;
      for (int i = 0; i < 7; ++i) {
        contexts.push_back(1 + static_cast<int64_t>(random.below(i == 0 ? 1500 : 200)));
        rows.push_back(i % 2 == 0 ? 1 : 1 + static_cast<int64_t>(random.below(contexts.back())));
      }
      AttentionBatch batch(shape, contexts, rows, 5);
      for (const char* level : vector_levels(batch)) {
        SCOPED_TRACE(describe(shape) + " " + level);
        const std::vector<float> together = batch.run(level, {&pool, detect_cpu_isa()});
        for (size_t i = 0; i < contexts.size(); ++i) {
          AttentionBatch alone(shape, {contexts[i]}, {rows[i]}, 99 + i, {i});
          const auto begin = together.begin() + batch.spans()[i].first_row * batch.row_width();
          ASSERT_TRUE(same_bits({begin, begin + rows[i] * batch.row_width()},
                                alone.run(level, {nullptr, detect_cpu_isa()})));
        }
      }
    }
  }
}

TEST(Attention, ScatteredPagesThatLookAdjacent) {
  // Among this many orders of one-token pages, some 16 (and 8) keys begin and end 15 (7) rows apart although
  // they are not adjacent.
  for (const KvFormat format : {KvFormat::int8, KvFormat::int4}) {
    const AttentionShape shape{format, 16, 1, 1, 1};
    AttentionBatch ordered({format, 16, 1, 1, 64}, {64}, {1});
    const std::vector<float> expected = ordered.run("reference", {nullptr, CpuIsa::reference});
    for (uint64_t order = 0; order < 300; ++order) {
      AttentionBatch scattered(shape, {64}, {1}, order);
      for (const char* level : vector_levels(scattered)) {
        ASSERT_TRUE(same_bits(expected, scattered.run(level, {nullptr, detect_cpu_isa()}))) << level;
      }
    }
  }
}

TEST(Attention, LongPrefill) {
  AttentionBatch batch({KvFormat::int4, 16, 1, 1, 16}, {2048}, {2048});
  check(batch, 5e-5);
}

TEST(Attention, ManyThreadsSplitOneSequence) {
  AttentionBatch batch({KvFormat::int4, 64, 3, 3, 16}, {4000, 900}, {1, 40});
  ThreadPool pool(7);
  const std::vector<float> expected = batch.run("reference", {nullptr, CpuIsa::reference});
  for (const char* level : vector_levels(batch)) {
    for (int round = 0; round < 10; ++round) {
      ASSERT_TRUE(same_bits(expected, batch.run(level, {&pool, detect_cpu_isa()}))) << level;
    }
  }
}

TEST(Attention, LargeScoresAreSafe) {
  for (const KvFormat format : kFormats) {
    AttentionBatch batch({format, 64, 2, 3, 16, 3000.0f}, {700, 65}, {3, 65});
    const std::vector<float> got = batch.run("reference", {nullptr, CpuIsa::reference});
    for (const float x : got) ASSERT_TRUE(std::isfinite(x));
    check(batch, 3e-2);  // scores of 10^4 carry float's rounding of 10^-3 into exponents
  }
}

TEST(Attention, EqualScoresGiveTheMean) {
  for (const KvFormat format : kFormats) {
    AttentionBatch batch({format, 64, 2, 3, 16, 0.0f}, {600, 65}, {2, 65});
    check(batch);
  }
}

TEST(Attention, UnusedScoresAndInfinities) {
  // A query that overflows: all of its scores are infinite or NaN. Levels agree, and other rows are unharmed.
  AttentionBatch batch({KvFormat::f16, 64, 1, 2, 16}, {100, 30}, {3, 3});
  const std::vector<float> clean = batch.run("reference", {nullptr, CpuIsa::reference});
  for (int64_t d = 0; d < 64; ++d) batch.q()(1, d) = std::numeric_limits<float>::infinity();
  const std::vector<float> expected = batch.run("reference", {nullptr, CpuIsa::reference});
  for (int64_t i = 0; i < 64; ++i) EXPECT_TRUE(std::isnan(expected[static_cast<size_t>(128 + i)]));
  for (const char* level : vector_levels(batch)) {
    const std::vector<float> got = batch.run(level, {nullptr, detect_cpu_isa()});
    for (size_t i = 0; i < got.size(); ++i) {
      const bool poisoned = i >= 128 && i < 192;
      EXPECT_EQ(std::isnan(got[i]), poisoned) << level << " value " << i;
      if (poisoned) continue;
      EXPECT_EQ(got[i], clean[i]) << level << " value " << i;
    }
  }
}

}  // namespace
}  // namespace atom
