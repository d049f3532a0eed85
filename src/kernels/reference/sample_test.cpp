#include "kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/fused_test_support.h"

// Sample against sorting in double precision, on what is exact about it, and on its distribution.
namespace atom::reference {
namespace {

using namespace fused_test;

constexpr uint64_t kLastRandom = ~uint64_t{0};

int32_t sample_one(const std::vector<float>& logits, const SampleParams& params) {
  int32_t token = -2;
  const auto vocab = static_cast<int64_t>(logits.size());
  sample({}, {{logits.data(), 1, vocab}, {&params, 1}, {&token, 1}});
  return token;
}

/// Probabilities of what the filters leave, by id, all in double; zeros when no logit is finite.
std::vector<double> filtered(const std::vector<float>& logits, double temperature, int64_t top_k,
                             double top_p, double min_p) {
  std::vector<size_t> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> out(logits.size());
  if (order.empty()) return out;
  const double largest = logits[order.front()];
  if (top_k > 0 && top_k < static_cast<int64_t>(order.size())) order.resize(static_cast<size_t>(top_k));
  const auto weight = [&](size_t i) { return std::exp((logits[i] - largest) / temperature); };
  if (top_p < 1) {
    double total = 0, sum = 0;
    for (const size_t i : order) total += weight(i);
    size_t kept = 0;
    while (kept < order.size() && (kept == 0 || sum < top_p * total)) sum += weight(order[kept++]);
    order.resize(kept);
  }
  double total = 0;
  for (const size_t i : order) {
    if (weight(i) < min_p) continue;
    out[i] = weight(i);
    total += out[i];
  }
  for (double& p : out) p /= total;
  return out;
}

/// Whether `token` is where the draw falls, within rounding, when the filters are moved by rounding.
bool is_explained(const std::vector<float>& logits, const SampleParams& params, int32_t token) {
  constexpr double kSlack = 1e-5;
  const double place = static_cast<double>(params.random) * 0x1p-64;
  for (const double p : {0.0, -kSlack, kSlack}) {
    for (const double m : {1.0, 1 - kSlack, 1 + kSlack}) {
      // Nothing moves a filter that is off, or past the most likely token.
      const double top_p = params.top_p < 1 ? params.top_p + p : 1, min_p = std::min(1.0, params.min_p * m);
      const auto probabilities = filtered(logits, params.temperature, params.top_k, top_p, min_p);
      const auto at = probabilities.begin() + token;
      const double before = std::accumulate(probabilities.begin(), at, 0.0);
      if (*at > 0 && before <= place + kSlack && before + *at >= place - kSlack) return true;
    }
  }
  return false;
}

std::vector<float> random_logits(Random& random, int64_t vocab, int kind) {
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& f : logits) {
    f = normal(random) * 3;
    if (kind == 1) f = std::round(f);
    if (kind == 2) f = sample(random, Kind::non_finite);
    if (kind == 3) f = random.below(2) == 0 ? 0.0f : -0.0f;
    if (kind == 4) f *= 30;
    if (kind == 5 && random.below(3) != 0) f = -INFINITY;
  }
  return logits;
}

TEST(ReferenceSample, MatchesSortingInDouble) {
  Random random(1);
  const float temperatures[] = {1e-3f, 0.1f, 0.7f, 1.0f, 2.0f, 100.0f};
  const float top_ps[] = {1.0f, 0.9f, 0.5f, 0.99f, 0.1f, 1e-6f, 0.0f};
  const float min_ps[] = {0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-7f};
  for (const int64_t vocab : {1, 2, 3, 17, 100, 1000}) {
    const int32_t top_ks[] = {0, 0, 1, 2, 40, static_cast<int32_t>(vocab), static_cast<int32_t>(vocab) - 1};
    for (int round = 0; round < 300; ++round) {
      const auto logits = random_logits(random, vocab, round % 6);
      const SampleParams params = {.temperature = temperatures[random.below(6)],
                                   .top_p = top_ps[random.below(7)],
                                   .min_p = min_ps[random.below(6)],
                                   .top_k = top_ks[random.below(7)],
                                   .random = random.next()};
      const int32_t token = sample_one(logits, params);
      if (std::none_of(logits.begin(), logits.end(), [](float f) { return std::isfinite(f); })) {
        EXPECT_EQ(token, -1);
        continue;
      }
      ASSERT_GE(token, 0);
      EXPECT_TRUE(is_explained(logits, params, token))
          << token << " of " << vocab << ", temperature " << params.temperature << ", top_k " << params.top_k
          << ", top_p " << params.top_p << ", min_p " << params.min_p << ", logits " << round % 6;
    }
  }
}

/// The tokens that draws at evenly spaced places come upon.
std::vector<int32_t> tokens_of(const std::vector<float>& logits, SampleParams params) {
  std::set<int32_t> tokens;
  for (uint64_t i = 0; i < 256; ++i) {
    params.random = i << 56 | 0x80000000000000u;
    tokens.insert(sample_one(logits, params));
  }
  return {tokens.begin(), tokens.end()};
}

TEST(ReferenceSample, OfEqualTokensTheFirstAreKept) {
  const std::vector<float> equal(8, 1.5f);
  const std::vector<int32_t> all = {0, 1, 2, 3, 4, 5, 6, 7}, half = {0, 1, 2, 3}, first = {0};
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f}), all);
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .top_k = 4}), half);
  // A half exactly, and not a token more.
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .top_p = 0.5f}), half);
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .top_p = std::nextafter(0.5f, 1.0f)}),
            (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .top_p = 0.0f}), first);
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .min_p = 1.0f}), all);
  EXPECT_EQ(tokens_of(equal, {.temperature = 1.0f, .top_p = 0.5f, .min_p = 1.0f, .top_k = 2}), first);
  EXPECT_EQ(tokens_of({-0.0f, 0.0f, -0.0f}, {.temperature = 1.0f, .top_k = 2}), (std::vector<int32_t>{0, 1}));
}

TEST(ReferenceSample, TheEndsOfTheDrawAreTheFirstAndTheLastToken) {
  const std::vector<float> logits = {-INFINITY, -3.0f, 2.0f, NAN, 1.0f, -50.0f, INFINITY};
  EXPECT_EQ(sample_one(logits, {.temperature = 1.0f, .random = 0}), 1);
  // The token with a probability below 2^-40 is never drawn.
  EXPECT_EQ(sample_one(logits, {.temperature = 1.0f, .random = kLastRandom}), 4);
  EXPECT_EQ(sample_one(logits, {.temperature = 10.0f, .random = kLastRandom}), 5);
  EXPECT_EQ(sample_one({1.0f}, {.temperature = 1.0f, .random = kLastRandom}), 0);
}

TEST(ReferenceSample, NoTemperatureIsTheLargestLogit) {
  const std::vector<float> logits = {NAN, 1.0f, INFINITY, 3.0f, 3.0f};
  for (const float temperature : {0.0f, -1.0f, NAN, INFINITY, 1e-40f}) {
    EXPECT_EQ(sample_one(logits, {.temperature = temperature, .random = kLastRandom}), 3) << temperature;
  }
  EXPECT_EQ(sample_one(logits, {.temperature = 1e-30f, .top_k = 1, .random = kLastRandom}), 3);
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(sample_one({NAN, INFINITY, -INFINITY}, {.temperature = temperature}), -1);
  }
}

TEST(ReferenceSample, LogitsMayBeAsFarApartAsFloatsAre) {
  EXPECT_EQ(tokens_of({-3e38f, 3e38f}, {.temperature = 1.0f}), (std::vector<int32_t>{1}));
  EXPECT_EQ(tokens_of({-1e38f, 1e38f}, {.temperature = 1e38f}), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(tokens_of({1e-40f, 3e-40f}, {.temperature = 1e-30f}), (std::vector<int32_t>{0, 1}));
}

TEST(ReferenceSample, DrawsInProportion) {
  Random random(2);
  constexpr int64_t kDraws = 40000;
  const auto logits = random_logits(random, 200, 0);
  const SampleParams settings[] = {{.temperature = 1.0f},
                                   {.temperature = 0.7f, .top_p = 0.95f},
                                   {.temperature = 2.0f, .min_p = 0.02f, .top_k = 100}};
  for (SampleParams params : settings) {
    std::vector<SampleParams> rows(kDraws, params);
    for (SampleParams& row : rows) row.random = random.next();
    std::vector<int32_t> tokens(kDraws);
    // Rows that are one and the same.
    MatrixView<const float> view{logits.data(), kDraws, 200};
    view.stride = 0;
    sample({}, {view, rows, tokens});
    std::vector<double> counts(200);
    for (const int32_t token : tokens) counts[static_cast<size_t>(token)] += 1;
    const auto expected = filtered(logits, params.temperature, params.top_k, params.top_p, params.min_p);
    double chi_square = 0, degrees = -1;
    for (size_t i = 0; i < 200; ++i) {
      const double e = expected[i] * kDraws;
      if (e == 0) {
        EXPECT_EQ(counts[i], 0) << i;
        continue;
      }
      chi_square += (counts[i] - e) * (counts[i] - e) / e;
      degrees += 1;
    }
    // Mean `degrees`, standard deviation sqrt(2 degrees).
    EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2 * degrees));
    EXPECT_GT(chi_square, degrees - 4 * std::sqrt(2 * degrees));
  }
}

TEST(ReferenceSample, TheRestOfTheBatchDoesNotMatter) {
  Random random(3);
  constexpr int64_t kRows = 40, kVocab = 3000;
  const Matrix<float> logits = random_matrix(random, kRows, kVocab, Kind::outliers);
  std::vector<SampleParams> params;
  for (int i = 0; i < kRows; ++i) {
    params.push_back({.temperature = 0.3f * static_cast<float>(i % 5),
                      .top_p = i % 2 == 0 ? 0.9f : 1.0f,
                      .min_p = i % 3 == 0 ? 0.1f : 0.0f,
                      .top_k = i % 7 * 3,
                      .random = random.next()});
  }
  ThreadPool pool(3);
  std::vector<int32_t> together(kRows);
  sample({&pool}, {logits.view(), params, together});
  for (int64_t t = 0; t < kRows; ++t) {
    const std::vector<float> row(logits.row(t), logits.row(t) + kVocab);
    EXPECT_EQ(sample_one(row, params[static_cast<size_t>(t)]), together[static_cast<size_t>(t)]) << t;
  }
}

TEST(Sampling, ProductsOfAllBits) {
  EXPECT_EQ(sampling::multiply_high(kLastRandom, kLastRandom), kLastRandom - 1);
  EXPECT_EQ(sampling::multiply_high(uint64_t{1} << 63, 12345), 6172u);
  EXPECT_EQ(sampling::multiply_high(0x123456789ABCDEF0u, 0xFEDCBA9876543210u), 0x121FA00AD77D7422u);
  EXPECT_EQ(sampling::share_of(0.5f, 7), 4u);
  EXPECT_EQ(sampling::share_of(0.5f, 8), 4u);
  EXPECT_EQ(sampling::share_of(1e-30f, uint64_t{1} << 40), 1u);
  EXPECT_EQ(sampling::share_of(0.0f, 7), 1u);
}

}  // namespace
}  // namespace atom::reference
