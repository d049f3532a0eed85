#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "kernels/ops.h"

namespace atom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Logits whose softmax is 0.5, 0.25, 0.125, 0.0625, 0.0625 in this order of ids: 2, 0, 4, 1, 3.
std::vector<float> halves() {
  return {std::log(0.25f), std::log(0.0625f), std::log(0.5f), std::log(0.0625f), std::log(0.125f)};
}

/// The next token of a sampler, from logits that it sees as the evaluator would show them; `logits` is
/// changed.
int32_t sample(Sampler& sampler, std::vector<float>& logits) {
  const auto vocab = static_cast<int64_t>(logits.size());
  const auto changes = sampler.changes();
  const auto mask = sampler.mask();
  const int32_t first[] = {0, static_cast<int32_t>(changes.size())};
  const int32_t mask_of = mask.empty() ? -1 : 0;
  run(DeviceContext{}, ChangeLogits{{logits.data(), 1, vocab}, first, changes, {&mask_of, 1}, mask});
  const SampleParams params = sampler.next();
  int32_t token = -1;
  run(DeviceContext{}, Sample{{logits.data(), 1, vocab}, {&params, 1}, {&token, 1}});
  sampler.accept(token);
  return token;
}

/// Shares of `draws` draws from the same logits.
std::map<int32_t, double> shares(SamplingParams params, const std::vector<float>& logits, int draws = 20000) {
  Sampler sampler(params);
  std::map<int32_t, double> counts;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = logits;
    counts[sample(sampler, copy)] += 1.0 / draws;
  }
  return counts;
}

SamplingParams warm(float temperature = 1.0f) {
  SamplingParams params;
  params.temperature = temperature;
  return params;
}

void expect_near(const std::map<int32_t, double>& found, const std::map<int32_t, double>& expected) {
  for (const auto& [token, share] : expected) {
    ASSERT_TRUE(found.count(token)) << token;
    // Five standard deviations of 20,000 draws at a share of one half.
    EXPECT_NEAR(found.at(token), share, 0.018) << token;
  }
  EXPECT_EQ(found.size(), expected.size());
}

TEST(SamplingParams, RangesAreChecked) {
  const auto refused = [](auto&& change) {
    SamplingParams params;
    change(params);
    EXPECT_THROW(Sampler{params}, UsageError);
  };
  for (const float bad : {-1.0f, kNaN, INFINITY, 1e-6f}) {
    refused([bad](auto& params) { params.temperature = bad; });
  }
  refused([](auto& params) { params.top_k = -1; });
  for (const float bad : {0.0f, -0.5f, 1.5f, kNaN}) {
    refused([bad](auto& params) { params.top_p = bad; });
  }
  for (const float bad : {-0.1f, 1.1f, kNaN}) {
    refused([bad](auto& params) { params.min_p = bad; });
  }
  for (const float bad : {0.0f, -1.0f, kNaN, INFINITY}) {
    refused([bad](auto& params) { params.repetition_penalty = bad; });
  }
  EXPECT_NO_THROW(SamplingParams{}.validate());
}

TEST(Sampler, GreedyTakesTheLargestAndOfEqualOnesTheFirst) {
  Sampler sampler({});
  std::vector<float> logits = {1.0f, 3.0f, 2.0f, 3.0f};
  EXPECT_EQ(sample(sampler, logits), 1);
}

TEST(Sampler, NotANumberIsNeverChosen) {
  Sampler greedy({});
  std::vector<float> logits = {kNaN, -5.0f, INFINITY, -INFINITY};
  EXPECT_EQ(sample(greedy, logits), 1);
  for (SamplingParams params : {warm(), SamplingParams{.temperature = 1.0f, .top_k = 3, .top_p = 0.9f}}) {
    Sampler sampler(params);
    std::vector<float> again = {kNaN, -5.0f, INFINITY, -INFINITY};
    EXPECT_EQ(sample(sampler, again), 1);
  }
  std::vector<float> none = {kNaN, -INFINITY};
  EXPECT_THROW(sample(greedy, none), Error);
}

TEST(Sampler, DrawsInProportion) {
  expect_near(shares(warm(), halves()), {{2, 0.5}, {0, 0.25}, {4, 0.125}, {1, 0.0625}, {3, 0.0625}});
}

TEST(Sampler, TemperatureIsAnExponent) {
  // At temperature 1/2 probabilities are squared: 64, 16, 4, 1, 1 parts of 86.
  expect_near(shares(warm(0.5f), halves()),
              {{2, 64.0 / 86}, {0, 16.0 / 86}, {4, 4.0 / 86}, {1, 1.0 / 86}, {3, 1.0 / 86}});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  SamplingParams params = warm();
  params.top_k = 2;
  expect_near(shares(params, halves()), {{2, 2.0 / 3}, {0, 1.0 / 3}});
  // Of two equally likely ones the smaller id goes first.
  params.top_k = 4;
  expect_near(shares(params, halves()), {{2, 8.0 / 15}, {0, 4.0 / 15}, {4, 2.0 / 15}, {1, 1.0 / 15}});
  params.top_k = 100;
  EXPECT_EQ(shares(params, halves()).size(), 5u);
}

TEST(Sampler, TopPKeepsTheFewestThatAddUp) {
  SamplingParams params = warm();
  params.top_p = 0.6f;
  expect_near(shares(params, halves()), {{2, 2.0 / 3}, {0, 1.0 / 3}});
  params.top_p = 0.49f;
  expect_near(shares(params, halves()), {{2, 1.0}});
  params.top_p = 1e-6f;
  expect_near(shares(params, halves()), {{2, 1.0}});
}

TEST(Sampler, MinPIsAShareOfTheLargest) {
  SamplingParams params = warm();
  params.min_p = 0.3f;
  expect_near(shares(params, halves()), {{2, 2.0 / 3}, {0, 1.0 / 3}});
  params.min_p = 1.0f;
  expect_near(shares(params, halves()), {{2, 1.0}});
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  // Of the two that top-k leaves the first has two thirds, so top-p 0.6 leaves it alone; the other way round
  // it would have kept both.
  SamplingParams params = warm();
  params.top_k = 2;
  params.top_p = 0.6f;
  expect_near(shares(params, halves()), {{2, 1.0}});
}

TEST(Sampler, TopPOverManyTokensEqualsAFullSort) {
  Random random(3);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> logits(5000);
    for (float& logit : logits) logit = static_cast<float>(random.uniform() * 3);
    std::vector<float> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    double total = 0.0;
    for (const float logit : sorted) total += std::exp(logit);
    SamplingParams params = warm();
    params.top_p = 0.05f + 0.9f * static_cast<float>(random.uniform());
    double sum = 0.0;
    size_t kept = 0;
    while (sum < params.top_p * total) sum += std::exp(sorted[kept++]);
    Sampler sampler(params);
    for (int i = 0; i < 50; ++i) {
      std::vector<float> copy = logits;
      const auto token = static_cast<size_t>(sample(sampler, copy));
      // One more is let through: the sums above are of numbers rounded differently.
      EXPECT_GE(logits[token], sorted[std::min(kept, sorted.size() - 1)]);
    }
  }
}

TEST(Sampler, RepetitionPenaltyComesFirst) {
  SamplingParams params;
  params.repetition_penalty = 2.0f;
  Sampler sampler(params);
  sampler.observe(0);
  sampler.observe(0);
  // Positive logits are divided, once however often the token occurred: 4 becomes 2.
  std::vector<float> logits = {4.0f, 3.0f, 1.9f};
  EXPECT_EQ(sample(sampler, logits), 1);
  EXPECT_EQ(logits[0], 2.0f);
  // Token 1 has occurred by now too: 3 becomes 1.5.
  std::vector<float> again = {3.0f, 3.0f, 1.9f};
  EXPECT_EQ(sample(sampler, again), 2);
  // Negative ones are multiplied.
  std::vector<float> negative = {-1.0f, -1.0f, -1.0f, -1.5f};
  EXPECT_EQ(sample(sampler, negative), 3);
}

TEST(Sampler, TheSeedDecides) {
  Random random(5);
  std::vector<float> logits(300);
  for (float& logit : logits) logit = static_cast<float>(random.uniform() * 4);
  const auto draw = [&](uint64_t seed, SamplingParams params) {
    params.seed = seed;
    Sampler sampler(params);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 40; ++i) {
      std::vector<float> copy = logits;
      tokens.push_back(sample(sampler, copy));
    }
    return tokens;
  };
  SamplingParams filtered = warm(0.8f);
  filtered.top_k = 100;
  filtered.top_p = 0.95f;
  filtered.min_p = 0.01f;
  for (const SamplingParams& params : {warm(), filtered}) {
    std::set<std::vector<int32_t>> different;
    for (uint64_t seed = 0; seed < 10; ++seed) {
      EXPECT_EQ(draw(seed, params), draw(seed, params));
      different.insert(draw(seed, params));
    }
    EXPECT_EQ(different.size(), 10u);
  }
}

TEST(Sampler, GreedyIsTheLimitOfSmallTemperatures) {
  Random random(9);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> logits(64);
    for (float& logit : logits) logit = static_cast<float>(random.uniform() * 40 - 20);
    std::vector<float> copy = logits;
    Sampler greedy({});
    Sampler cold(warm(1e-3f));
    EXPECT_EQ(sample(greedy, logits), sample(cold, copy));
  }
}

}  // namespace
}  // namespace atom
