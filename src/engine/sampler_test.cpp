#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
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
  for (const float bad : {-2.01f, 2.01f, kNaN, INFINITY}) {
    refused([bad](auto& params) { params.presence_penalty = bad; });
    refused([bad](auto& params) { params.frequency_penalty = bad; });
  }
  for (const float bad : {-100.1f, 100.1f, kNaN, -INFINITY}) {
    refused([bad](auto& params) { params.logit_bias = {{1, 0.0f}, {2, bad}}; });
  }
  refused([](auto& params) { params.logit_bias = {{-1, 1.0f}}; });
  refused([](auto& params) { params.logit_bias = {{7, 1.0f}, {8, 1.0f}, {7, 1.0f}}; });
  EXPECT_NO_THROW(SamplingParams{}.validate());
  SamplingParams extreme;
  extreme.presence_penalty = -2.0f;
  extreme.frequency_penalty = 2.0f;
  extreme.logit_bias = {{0, -100.0f}, {9, 100.0f}};
  EXPECT_NO_THROW(extreme.validate(10));
  EXPECT_THROW(extreme.validate(9), UsageError);
  try {
    extreme.validate(9);
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("logit_bias"), std::string::npos) << error.what();
  }
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

TEST(Sampler, PresenceCountsOnceAndFrequencyEveryTime) {
  SamplingParams params;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  Sampler sampler(params);
  // What the prompt holds does not count.
  sampler.observe(0);
  EXPECT_TRUE(sampler.changes().empty());
  sampler.accept(3);
  sampler.accept(3);
  sampler.accept(5);
  sampler.accept(3);
  EXPECT_EQ(std::vector(sampler.changes().begin(), sampler.changes().end()),
            (std::vector<LogitChange>{{3, 1.0f, -1.25f}, {5, 1.0f, -0.75f}}));
  // Negative ones reward.
  params.presence_penalty = -2.0f;
  params.frequency_penalty = 0.0f;
  Sampler rewarding(params);
  rewarding.accept(1);
  rewarding.accept(1);
  std::vector<float> logits = {1.5f, 0.0f};
  EXPECT_EQ(sample(rewarding, logits), 1);
  EXPECT_EQ(logits[1], 2.0f);
}

TEST(Sampler, ALongAnswersPenaltyIsTheProductOfItsCount) {
  SamplingParams params;
  params.frequency_penalty = 0.1f;
  Sampler sampler(params);
  for (int i = 0; i < 100000; ++i) sampler.accept(2);
  ASSERT_EQ(sampler.changes().size(), 1u);
  EXPECT_EQ(sampler.changes()[0].bias, -0.1f * 100000.0f);
}

TEST(Sampler, BiasAndAllPenaltiesOfOneTokenAreOneChange) {
  SamplingParams params;
  params.repetition_penalty = 2.0f;
  params.presence_penalty = 1.0f;
  params.frequency_penalty = 0.5f;
  params.logit_bias = {{4, 10.0f}, {1, -100.0f}};
  Sampler sampler(params);
  sampler.observe(4);
  sampler.observe(2);
  sampler.accept(4);
  sampler.accept(0);
  sampler.accept(4);
  EXPECT_EQ(
      std::vector(sampler.changes().begin(), sampler.changes().end()),
      (std::vector<LogitChange>{{4, 2.0f, 8.0f}, {1, 1.0f, -100.0f}, {2, 2.0f, 0.0f}, {0, 2.0f, -1.5f}}));
  // The repetition penalty first: 8 / 2 + 8, not (8 + 8) / 2.
  std::vector<float> logits = {0.0f, 100.0f, 3.0f, 11.9f, 8.0f};
  EXPECT_EQ(sample(sampler, logits), 4);
  EXPECT_EQ(logits[4], 12.0f);
}

TEST(Sampler, NothingAskedForNothingChanged) {
  Sampler sampler(warm());
  sampler.observe(1);
  sampler.accept(2);
  EXPECT_TRUE(sampler.changes().empty());
  EXPECT_TRUE(sampler.mask().empty());
}

TEST(Sampler, AMaskStaysUntilTheNextOne) {
  Sampler sampler(warm());
  sampler.set_mask({0b01010});
  for (int i = 0; i < 50; ++i) {
    std::vector<float> logits = halves();
    const int32_t token = sample(sampler, logits);
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
  sampler.set_mask({0});
  std::vector<float> logits = halves();
  EXPECT_THROW(sample(sampler, logits), Error);
  sampler.set_mask({});
  logits = halves();
  EXPECT_GE(sample(sampler, logits), 0);
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
