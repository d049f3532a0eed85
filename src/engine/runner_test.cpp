#include "engine/runner.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tiny_model_testing.h"

// Runner::evaluate against brute force over all logits, in double.

namespace atom {
namespace {

class RunnerTest : public ::testing::Test {
 protected:
  static constexpr size_t kTokens = 24;

  RunnerTest()
      : cache_(tiny_.model->kv_shape(), KvFormat::f32, 64),
        table_(cache_),
        tokens_(tiny_.random_tokens(kTokens)) {}

  /// The residual stream of tokens_.
  MatrixView<const float> step(Runner& runner) {
    table_.clear();
    const Chunk chunk{&table_, tokens_};
    return runner.step({&chunk, 1});
  }

  int64_t vocab() const { return tiny_.model->config().vocab; }

  TinyModel tiny_;
  PagedKvCache cache_;
  BlockTable table_;
  std::vector<int32_t> tokens_;
};

double log_sum(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]));
  return std::log(sum);
}

/// What the documentation of RowQuery says, one query at a time.
RowAnswer expected_answer(const float* logits, int64_t vocab, const RowQuery& query) {
  RowAnswer answer;
  if (query.draw) {
    std::vector<float> changed(logits, logits + vocab);
    for (const LogitChange& change : query.changes) {
      float& l = changed[static_cast<size_t>(change.token)];
      l = (l > 0 ? l / change.divisor : l * change.divisor) + change.bias;
    }
    for (size_t i = 0; i < changed.size() && !query.mask.empty(); ++i) {
      if ((query.mask[i / 32] >> (i % 32) & 1) == 0) changed[i] = -INFINITY;
    }
    run(DeviceContext{}, Sample{{changed.data(), 1, vocab}, {&query.params, 1}, {&answer.token, 1}});
  }
  if (query.top < 0) return answer;
  const double normalizer = log_sum(logits, vocab);
  const int32_t token = query.target >= 0 ? query.target : answer.token;
  answer.logprob = token < 0 ? NAN : static_cast<float>(static_cast<double>(logits[token]) - normalizer);
  std::vector<bool> taken(static_cast<size_t>(vocab));
  for (int i = 0; i < query.top; ++i) {
    int64_t best = -1;
    for (int64_t j = 0; j < vocab; ++j) {
      if (!taken[static_cast<size_t>(j)] && (best < 0 || logits[j] > logits[best])) best = j;
    }
    taken[static_cast<size_t>(best)] = true;
    answer.top.emplace_back(static_cast<int32_t>(best),
                            static_cast<float>(static_cast<double>(logits[best]) - normalizer));
  }
  return answer;
}

void expect_near(const RowAnswer& found, const RowAnswer& expected, const std::string& what) {
  EXPECT_EQ(found.token, expected.token) << what;
  if (std::isnan(expected.logprob)) {
    EXPECT_TRUE(std::isnan(found.logprob)) << what;
  } else {
    EXPECT_NEAR(found.logprob, expected.logprob, 1e-5) << what;
  }
  ASSERT_EQ(found.top.size(), expected.top.size()) << what;
  for (size_t i = 0; i < found.top.size(); ++i) {
    EXPECT_EQ(found.top[i].first, expected.top[i].first) << what << ", place " << i;
    EXPECT_NEAR(found.top[i].second, expected.top[i].second, 1e-5) << what << ", place " << i;
  }
}

bool same(const RowAnswer& a, const RowAnswer& b) {
  const bool both_nan = std::isnan(a.logprob) && std::isnan(b.logprob);
  return a.token == b.token && (both_nan || a.logprob == b.logprob) && a.top == b.top;
}

/// Queries of all kinds, in no order, with what they refer to.
struct Mixture {
  std::vector<RowQuery> queries;
  std::vector<std::vector<LogitChange>> changes;
  std::vector<std::vector<uint32_t>> masks;

  Mixture(size_t count, int64_t rows, int64_t vocab, uint64_t seed) : changes(count), masks(count) {
    Random random(seed);
    for (size_t i = 0; i < count; ++i) {
      RowQuery query;
      query.row = static_cast<int64_t>(random.below(static_cast<uint64_t>(rows)));
      query.draw = random.below(4) != 0;
      query.params = {.temperature = random.below(2) == 0 ? 0.0f : 1.2f,
                      .top_p = random.below(2) == 0 ? 1.0f : 0.9f,
                      .random = random.next()};
      if (random.below(2) == 0) {
        for (int j = 0; j < 30; ++j) {
          changes[i].push_back({static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab))), 1.5f,
                                static_cast<float>(random.uniform() * 4 - 2)});
        }
      }
      if (random.below(3) == 0) {
        masks[i].resize(static_cast<size_t>((vocab + 31) / 32));
        for (uint32_t& word : masks[i]) word = static_cast<uint32_t>(random.next() & random.next());
      }
      query.changes = changes[i];
      query.mask = masks[i];
      if (random.below(2) == 0)
        query.target = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
      query.top = static_cast<int>(random.below(12)) - 6;
      query.top = std::max(query.top, -1);
      queries.push_back(query);
    }
  }
};

TEST_F(RunnerTest, AnswersAreThoseOfBruteForce) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  const Matrix<float> logits = tiny_.logits(hidden);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Mixture mixture(1 + seed * 3, hidden.rows, vocab(), seed);
    std::vector<RowAnswer> answers(mixture.queries.size());
    runner.evaluate(hidden, mixture.queries, answers);
    for (size_t i = 0; i < answers.size(); ++i) {
      const RowQuery& query = mixture.queries[i];
      expect_near(answers[i], expected_answer(logits.row(query.row), vocab(), query),
                  "seed " + std::to_string(seed) + ", query " + std::to_string(i));
    }
  }
}

TEST_F(RunnerTest, NothingElseInTheBatchMatters) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  const Mixture mixture(60, hidden.rows, vocab(), 77);
  std::vector<RowAnswer> together(60);
  runner.evaluate(hidden, mixture.queries, together);
  for (size_t i = 0; i < 60; ++i) {
    RowAnswer alone;
    runner.evaluate(hidden, {&mixture.queries[i], 1}, {&alone, 1});
    EXPECT_TRUE(same(alone, together[i])) << i;
  }
}

TEST_F(RunnerTest, PiecesDoNotMatter) {
  Runner runner(*tiny_.model, cache_);
  const Mixture mixture(60, kTokens, vocab(), 5);
  std::vector<RowAnswer> whole(60);
  runner.evaluate(step(runner), mixture.queries, whole);
  const int64_t row_bytes = vocab() * static_cast<int64_t>(sizeof(float));
  for (const int64_t rows : {0, 1, 2, 3, 7, 59}) {
    Runner in_pieces(*tiny_.model, cache_, rows * row_bytes);
    // Answers of before must not be left over.
    std::vector<RowAnswer> answers(60, {.token = 5, .logprob = 1, .top = {{1, 1.0f}}});
    in_pieces.evaluate(step(in_pieces), mixture.queries, answers);
    for (size_t i = 0; i < 60; ++i) EXPECT_TRUE(same(answers[i], whole[i])) << rows << " rows, query " << i;
  }
}

TEST_F(RunnerTest, ManyDrawsOfOneRow) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  std::vector<RowQuery> queries(40, {.row = 7, .draw = true, .params = {.temperature = 2.0f}, .top = 2});
  for (size_t i = 0; i < queries.size(); ++i) queries[i].params.random = random_word(3, i);
  std::vector<RowAnswer> answers(queries.size());
  runner.evaluate(hidden, queries, answers);
  const Matrix<float> logits = tiny_.logits(hidden);
  std::set<int32_t> tokens;
  for (size_t i = 0; i < queries.size(); ++i) {
    expect_near(answers[i], expected_answer(logits.row(7), vocab(), queries[i]), std::to_string(i));
    tokens.insert(answers[i].token);
  }
  EXPECT_GT(tokens.size(), 5u);
}

TEST_F(RunnerTest, PromptLogProbabilitiesAreThoseOfEvaluation) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  const auto targets = std::span<const int32_t>(tokens_).subspan(1);
  std::vector<double> nll(targets.size());
  runner.negative_log_likelihoods(hidden.row_range(0, hidden.rows - 1), targets, nll);
  std::vector<RowQuery> queries;
  for (size_t i = 0; i < targets.size(); ++i) {
    queries.push_back({.row = static_cast<int64_t>(i), .target = targets[i], .top = 0});
  }
  std::vector<RowAnswer> answers(queries.size());
  runner.evaluate(hidden, queries, answers);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].logprob, static_cast<float>(-nll[i])) << i;
    EXPECT_EQ(answers[i].token, -1);
    EXPECT_TRUE(answers[i].top.empty());
  }
}

TEST_F(RunnerTest, LogProbabilitiesAreOfTheLogitsBeforeChanges) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  const RowQuery plain{.row = 3, .draw = true, .top = 5};
  RowAnswer before;
  runner.evaluate(hidden, {&plain, 1}, {&before, 1});
  EXPECT_EQ(before.token, before.top[0].first);
  EXPECT_EQ(before.logprob, before.top[0].second);
  // The third most likely token is made the most likely one, the others are as they were.
  const LogitChange change{before.top[2].first, 1.0f, 50.0f};
  RowQuery query = plain;
  query.changes = {&change, 1};
  RowAnswer after;
  runner.evaluate(hidden, {&query, 1}, {&after, 1});
  EXPECT_EQ(after.token, before.top[2].first);
  EXPECT_EQ(after.logprob, before.top[2].second);
  EXPECT_EQ(after.top, before.top);
  // And by a mask.
  std::vector<uint32_t> mask(static_cast<size_t>((vocab() + 31) / 32));
  const int32_t only = before.top[4].first;
  mask[static_cast<size_t>(only / 32)] = 1u << (only % 32);
  query.mask = mask;
  runner.evaluate(hidden, {&query, 1}, {&after, 1});
  EXPECT_EQ(after.token, only);
  EXPECT_EQ(after.logprob, before.top[4].second);
  EXPECT_EQ(after.top, before.top);
}

TEST_F(RunnerTest, AMaskThatLeavesNothing) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  const std::vector<uint32_t> mask(static_cast<size_t>((vocab() + 31) / 32));
  const RowQuery queries[] = {{.row = 3, .draw = true, .mask = mask, .top = 1},
                              {.row = 4, .draw = true, .top = 1}};
  std::vector<RowAnswer> answers(2);
  runner.evaluate(hidden, queries, answers);
  EXPECT_EQ(answers[0].token, -1);
  EXPECT_TRUE(std::isnan(answers[0].logprob));
  EXPECT_EQ(answers[0].top.size(), 1u);
  EXPECT_GE(answers[1].token, 0);
  EXPECT_EQ(answers[1].logprob, answers[1].top[0].second);
}

TEST_F(RunnerTest, QueriesThatAskForNothing) {
  Runner runner(*tiny_.model, cache_);
  const auto hidden = step(runner);
  runner.evaluate(hidden, {}, {});
  const std::vector<RowQuery> queries(3);
  std::vector<RowAnswer> answers(3, {.token = 5, .logprob = 1, .top = {{1, 1.0f}}});
  runner.evaluate(hidden, queries, answers);
  for (const RowAnswer& answer : answers) EXPECT_TRUE(same(answer, RowAnswer{}));
}

}  // namespace
}  // namespace atom
