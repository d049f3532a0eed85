#include "eval/perplexity.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/runner.h"
#include "engine/tiny_model_testing.h"

namespace atom {
namespace {

/// log softmax(x)[target] in long double.
double exact(const std::vector<float>& x, size_t target) {
  long double largest = -INFINITY;
  for (const float value : x) largest = std::max(largest, static_cast<long double>(value));
  long double sum = 0;
  for (const float value : x) sum += std::exp(static_cast<long double>(value) - largest);
  return static_cast<double>(static_cast<long double>(x[target]) - largest - std::log(sum));
}

/// The protocol written down once more, without chunks and without a cache that is used twice.
double direct_perplexity(const TinyModel& tiny, const std::vector<int32_t>& tokens, size_t window,
                         size_t windows) {
  double nll = 0.0;
  for (size_t i = 0; i < windows; ++i) {
    const std::vector<int32_t> piece(tokens.begin() + static_cast<std::ptrdiff_t>(i * window),
                                     tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * window));
    PagedKvCache cache(tiny.model->kv_shape(), KvFormat::f32, 100);
    BlockTable table(cache);
    Runner runner(*tiny.model, cache);
    const Chunk chunk{&table, piece};
    const auto logits = tiny.logits(runner.step({&chunk, 1}));
    double sum = 0.0;
    for (size_t t = 0; t + 1 < window; ++t) {
      const float* row = logits.row(static_cast<int64_t>(t));
      sum -= exact(std::vector<float>(row, row + logits.cols()), static_cast<size_t>(piece[t + 1]));
    }
    nll += sum / static_cast<double>(window - 1) * static_cast<double>(window);
  }
  return std::exp(nll / static_cast<double>(windows * window));
}

TEST(Perplexity, EqualsTheDirectComputation) {
  test_support::TinyLlama shape;
  shape.context = 1024;
  const TinyModel tiny(shape);
  const auto tokens = tiny.random_tokens(1500);
  for (const int64_t window : {2, 64, 513, 700}) {
    PerplexityOptions options{.window = window, .windows = 3, .kv_format = KvFormat::f32, .quiet = true};
    const PerplexityResult result = perplexity(*tiny.model, tokens, options);
    const int64_t windows = std::min<int64_t>(3, 1500 / window);
    EXPECT_EQ(result.windows, windows);
    EXPECT_EQ(result.tokens, windows * window);
    const double expected =
        direct_perplexity(tiny, tokens, static_cast<size_t>(window), static_cast<size_t>(windows));
    EXPECT_NEAR(result.perplexity, expected, 1e-6 * expected) << window;
    EXPECT_DOUBLE_EQ(std::exp(result.mean_nll), result.perplexity);
  }
}

TEST(Perplexity, TheNumberOfThreadsDoesNotMatter) {
  TinyModel tiny;
  const auto tokens = tiny.random_tokens(300);
  const PerplexityOptions options{.window = 100, .quiet = true};
  const double one = perplexity(*tiny.model, tokens, options).perplexity;
  ThreadPool three(3);
  tiny.device.pool = &three;
  EXPECT_EQ(perplexity(*tiny.model, tokens, options).perplexity, one);
  tiny.device.pool = &tiny.pool;
}

TEST(Perplexity, TheCacheFormatCounts) {
  const TinyModel tiny;
  const auto tokens = tiny.random_tokens(128);
  const auto with = [&](std::optional<KvFormat> format) {
    return perplexity(*tiny.model, tokens, {.window = 128, .kv_format = format, .quiet = true});
  };
  EXPECT_EQ(with(std::nullopt).kv_format, KvFormat::f16);
  EXPECT_EQ(with(std::nullopt).perplexity, with(KvFormat::f16).perplexity);
  EXPECT_NE(with(KvFormat::f32).perplexity, with(KvFormat::int4).perplexity);
}

TEST(Perplexity, BadArgumentsAreErrors) {
  const TinyModel tiny;
  const auto tokens = tiny.random_tokens(100);
  const auto run = [&](int64_t window, std::optional<int64_t> windows) {
    return perplexity(*tiny.model, tokens, {.window = window, .windows = windows, .quiet = true});
  };
  EXPECT_THROW(run(1, 1), Error);
  EXPECT_THROW(run(0, 1), Error);
  EXPECT_THROW(run(101, 1), Error);
  EXPECT_THROW(run(257, 1), Error);
  EXPECT_THROW(run(50, 0), Error);
  EXPECT_EQ(run(50, 9).windows, 2);
}

}  // namespace
}  // namespace atom
