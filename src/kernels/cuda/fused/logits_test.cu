#include <algorithm>
#include <numeric>

#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/numerics.h"

namespace atom::cuda {
namespace {

using namespace fused_test;

constexpr int64_t kVocabularies[] = {1, 2, 31, 32, 33, 1000, 1024, 1025, 4096, 32000, 128256};

/// Rows that have gone wrong before: ties, no finite logit, infinities.
Matrix<float> logits_of(Random& random, int64_t rows, int64_t vocab) {
  Matrix<float> x(rows, vocab);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < vocab; ++i) {
      float f = normal(random) * 3.0f;
      if (r % 6 == 1) f = std::round(f);
      if (r % 6 == 2) f = sample(random, Kind::non_finite);
      if (r % 6 == 3) f = random.below(3) == 0 ? -0.0f : 0.0f;
      if (r % 6 == 4) f = f * 20.0f;
      if (r % 6 == 5) f = random.below(2) == 0 ? NAN : -INFINITY;
      x(r, i) = f;
    }
  }
  return x;
}

int32_t argmax_of(const float* x, int64_t n) {
  int32_t best = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] < INFINITY) || x[i] == -INFINITY) continue;
    if (best < 0 || x[i] > x[best]) best = static_cast<int32_t>(i);
  }
  return best;
}

TEST(CudaLogSumExp, EqualsTheReferenceButForTheLogarithm) {
  ATOM_NEEDS_GPU();
  Random random(6);
  for (const int64_t vocab : kVocabularies) {
    Matrix<float> x = logits_of(random, 7, vocab);
    // Without NaN, too, infinities must come out as the reference has them.
    for (float& f : x.span().subspan(static_cast<size_t>(6 * vocab)))
      f = random.below(9) == 0 ? -INFINITY : f;
    DeviceMatrix device_x(DType::f32, x, 3);
    DeviceArray<double> out(7);
    log_sum_exp({device_x.view(), out.data()}, nullptr);
    std::vector<double> expected(7);
    run_reference(LogSumExp{std::as_const(x).view(), expected});
    const auto found = out.read();
    for (size_t r = 0; r < 7; ++r) {
      if (std::isnan(expected[r])) {
        EXPECT_TRUE(std::isnan(found[r])) << vocab << ' ' << r;
      } else {
        EXPECT_NEAR(found[r], expected[r], std::fabs(expected[r]) * 0x1p-51) << vocab << ' ' << r;
      }
    }
  }
}

TEST(CudaArgmax, TakesTheFirstLargest) {
  ATOM_NEEDS_GPU();
  Random random(7);
  for (const int64_t vocab : kVocabularies) {
    Matrix<float> x = logits_of(random, 12, vocab);
    DeviceMatrix device_x(DType::f32, x, 1);
    DeviceArray<int32_t> out(12);
    argmax({device_x.view(), out.data()}, nullptr);
    const auto found = out.read();
    for (int64_t r = 0; r < 12; ++r) EXPECT_EQ(found[static_cast<size_t>(r)], argmax_of(x.row(r), vocab));
  }
}

/// What fused.h says sample() chooses, by sorting. `margin`: how far the choice is from another one, as a
/// share of the weights; the order of sums decides below 1e-12 or so.
int32_t sample_by_sorting(const float* x, int64_t n, const SamplingRow& row, double& margin) {
  margin = 1.0;
  const int32_t best = argmax_of(x, n);
  if (best < 0 || row.temperature == 0.0f) return best;
  std::vector<float> w(static_cast<size_t>(n));
  std::vector<size_t> ids;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = x[i] < INFINITY ? numerics::exp((x[i] - x[best]) / row.temperature) : 0.0f;
    if (w[i] > 0) ids.push_back(i);
  }
  const bool ordered = row.top_k > 0 || row.top_p < 1.0f;
  if (ordered) std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return w[a] > w[b]; });
  const auto total = [&] {
    return std::accumulate(ids.begin(), ids.end(), 0.0, [&](double s, size_t i) { return s + w[i]; });
  };
  // Keeps or draws: the first place at which the sum reaches, or exceeds, a target.
  const auto place = [&](double target, bool exceed) {
    double sum = 0;
    const double scale = total();
    for (size_t i = 0; i < ids.size(); ++i) {
      sum += w[ids[i]];
      margin = std::min(margin, std::fabs(sum - target) / scale);
      if (exceed ? sum > target : sum >= target) return i;
    }
    return ids.size() - 1;
  };
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < ids.size())
    ids.resize(static_cast<size_t>(row.top_k));
  if (row.top_p < 1.0f) ids.resize(place(static_cast<double>(row.top_p) * total(), false) + 1);
  std::erase_if(ids, [&](size_t i) { return w[i] < std::min(row.min_p, 1.0f); });
  return static_cast<int32_t>(ids[place(row.uniform * total(), true)]);
}

TEST(CudaSample, EqualsSorting) {
  ATOM_NEEDS_GPU();
  Random random(8);
  int close = 0, compared = 0;
  for (const int64_t vocab : kVocabularies) {
    const int64_t rows = vocab > 40000 ? 24 : 120;
    Matrix<float> x = logits_of(random, rows, vocab);
    std::vector<SamplingRow> params;
    for (int64_t r = 0; r < rows; ++r) {
      SamplingRow row;
      const float temperatures[] = {1.0f, 0.7f, 0.0f, 2.0f, 0.001f, 1.0f};
      const int32_t top_ks[] = {0, 1, 5, 50, 1000, 1 << 20};
      const float top_ps[] = {1.0f, 0.9f, 0.5f, 0.01f, 0.9999f};
      const float min_ps[] = {0.0f, 0.0f, 0.05f, 1.0f};
      row.temperature = temperatures[random.below(6)];
      row.top_k = random.below(2) == 0 ? 0 : top_ks[random.below(6)];
      row.top_p = random.below(2) == 0 ? 1.0f : top_ps[random.below(5)];
      row.min_p = min_ps[random.below(4)];
      row.uniform = random.below(10) == 0   ? 0.0
                    : random.below(10) == 0 ? 0x1.fffffffffffffp-1
                                            : random.uniform();
      params.push_back(row);
    }
    DeviceMatrix device_x(DType::f32, x, 5);
    DeviceArray<SamplingRow> device_params(params);
    DeviceArray<int32_t> out(static_cast<size_t>(rows));
    cuda::sample(
        {{device_x.bytes.data(), DType::f32, rows, vocab, device_x.stride}, device_params.data(), out.data()},
        nullptr);
    const auto found = out.read();
    for (size_t r = 0; r < params.size(); ++r) {
      double margin = 0;
      const int32_t expected = sample_by_sorting(x.row(static_cast<int64_t>(r)), vocab, params[r], margin);
      ++compared;
      // On an edge between tokens, rounding of the sums decides.
      if (margin < 1e-13) {
        ++close;
        EXPECT_GE(found[r], 0);
        continue;
      }
      EXPECT_EQ(found[r], expected) << "vocab " << vocab << " row " << r << " temperature "
                                    << params[r].temperature << " top_k " << params[r].top_k << " top_p "
                                    << params[r].top_p << " min_p " << params[r].min_p << " uniform "
                                    << params[r].uniform;
    }
  }
  EXPECT_LT(close, compared / 3);
}

}  // namespace
}  // namespace atom::cuda
