#include "kernels/cuda/fused/fused_testing.h"

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

}  // namespace
}  // namespace atom::cuda
