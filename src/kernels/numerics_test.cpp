#include "kernels/numerics.h"

#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace atom::numerics {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

double ulp_of(double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

TEST(Exp, WithinTwoUlpOverItsRange) {
  double worst = 0;
  // Every 97th float of [-87.3, 88.3], both signs.
  for (uint32_t bits = 0; bits <= 0x42B0999Au; bits += 97) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const auto x = std::bit_cast<float>(bits | sign);
      if (x < -87.3f || x > 88.3f) continue;
      const double truth = std::exp(static_cast<double>(x));
      worst = std::max(worst, std::fabs(exp(x) - truth) / ulp_of(truth));
    }
    if (bits < 0x33000000u) bits += 100'000;
  }
  EXPECT_LE(worst, 2.0);
}

TEST(Exp, EndsOfItsRange) {
  EXPECT_EQ(exp(0.0f), 1.0f);
  EXPECT_EQ(exp(-0.0f), 1.0f);
  EXPECT_GT(exp(-87.3f), 0.0f);
  EXPECT_EQ(exp(std::nextafter(-87.3f, -kInfinity)), 0.0f);
  EXPECT_EQ(exp(-kInfinity), 0.0f);
  EXPECT_EQ(exp(kNaN), 0.0f);
  EXPECT_TRUE(std::isfinite(exp(88.3f)));
  EXPECT_EQ(exp(88.7f), exp(88.3f));
  EXPECT_EQ(exp(kInfinity), exp(88.3f));
  EXPECT_EQ(exp(-std::numeric_limits<float>::max()), 0.0f);
}

TEST(Silu, CloseToDoublePrecision) {
  for (float x = -120.0f; x < 120.0f; x += 0.013f) {
    const double truth = x / (1.0 + std::exp(-static_cast<double>(x)));
    EXPECT_NEAR(silu(x), truth, std::fabs(truth) * 1e-6 + 1e-34) << x;
  }
  EXPECT_EQ(silu(0.0f), 0.0f);
  EXPECT_EQ(silu(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(silu(kNaN)));
}

TEST(FiniteHalf, SaturatesInsteadOfInfinity) {
  EXPECT_EQ(finite_half(65504.0f), 65504.0f);
  EXPECT_EQ(finite_half(65520.0f), 65504.0f);
  EXPECT_EQ(finite_half(kInfinity), 65504.0f);
  EXPECT_EQ(finite_half(-kInfinity), -65504.0f);
  EXPECT_TRUE(std::isnan(finite_half(NAN)));
  EXPECT_EQ(finite_half(1.0f + 0x1p-11f), 1.0f);
  EXPECT_EQ(finite_half(0x1p-25f), 0.0f);
  EXPECT_EQ(finite_half(0x1p-24f), 0x1p-24f);
}

TEST(SymmetricScale, MapsTheLargestMagnitudeToTheLargestValue) {
  EXPECT_EQ(symmetric_scale(7.0f, 1.0f, 7.0f), 1.0f);
  EXPECT_EQ(symmetric_scale(0.0f, 1.0f, 7.0f), 0.0f);
  EXPECT_EQ(symmetric_scale(14.0f, 0.5f, 7.0f), 1.0f);
  EXPECT_EQ(symmetric_scale(kInfinity, 0.9f, 7.0f), 65504.0f);
  EXPECT_EQ(inverse_scale(0.0f), 0.0f);
  EXPECT_EQ(inverse_scale(0.25f), 4.0f);
}

TEST(MaxMagnitude, PassesOverNaN) {
  EXPECT_EQ(max_magnitude(1.0f, -2.0f), 2.0f);
  EXPECT_EQ(max_magnitude(1.0f, kNaN), 1.0f);
  EXPECT_EQ(max_magnitude(0.0f, -kInfinity), kInfinity);
}

TEST(Quantize, RoundsTiesToEvenAndSaturates) {
  const auto q4 = [](float x) { return quantize(x, 1.0f, -8.0f, 7.0f); };
  EXPECT_EQ(q4(0.5f), 0);
  EXPECT_EQ(q4(1.5f), 2);
  EXPECT_EQ(q4(2.5f), 2);
  EXPECT_EQ(q4(-0.5f), 0);
  EXPECT_EQ(q4(-1.5f), -2);
  EXPECT_EQ(q4(-7.5f), -8);
  EXPECT_EQ(q4(1e30f), 7);
  EXPECT_EQ(q4(-1e30f), -8);
  EXPECT_EQ(q4(kInfinity), 7);
  EXPECT_EQ(q4(-kInfinity), -8);
  EXPECT_EQ(q4(kNaN), -8);
  EXPECT_EQ(quantize(5.0f, 0.0f, -8.0f, 7.0f), 0);
}

TEST(KvParams, CoverTheRowAndHandleDegenerateOnes) {
  const KvParams p = kv_params(-1.0f, 14.0f, 15.0f);
  EXPECT_EQ(p.scale, 1.0f);
  EXPECT_EQ(p.minimum, -1.0f);
  EXPECT_EQ(kv_params(3.0f, 3.0f, 15.0f).scale, 0.0f);
  EXPECT_EQ(kv_params(kInfinity, -kInfinity, 15.0f).scale, 0.0f);
  EXPECT_EQ(kv_params(kInfinity, kInfinity, 15.0f).scale, 0.0f);
  EXPECT_FALSE(std::signbit(kv_params(-0.0f, 1.0f, 15.0f).minimum));
  EXPECT_FALSE(std::signbit(kv_params(-1e-20f, 1.0f, 15.0f).minimum));
  EXPECT_EQ(kv_params(-1e38f, 1e38f, 255.0f).scale, 65504.0f);
}

TEST(SumOfSquares, CloseToDoubleAndInItsStatedOrder) {
  Random random(1);
  for (const int64_t n : {1, 2, 15, 16, 17, 31, 64, 576, 4097}) {
    std::vector<float> x(static_cast<size_t>(n));
    double truth = 0;
    for (float& v : x) {
      v = static_cast<float>(random.uniform() - 0.5);
      truth += static_cast<double>(v) * v;
    }
    EXPECT_NEAR(sum_of_squares(x.data(), n), truth, truth * 1e-6);
  }
  // 2^24 + 1 is not a float: the order decides the sum.
  std::vector<float> x(17, 0.0f);
  x[0] = 4096.0f;
  x[8] = x[1] = 1.0f;
  EXPECT_EQ(sum_of_squares(x.data(), 17), 16777216.0f);
  x[1] = 0.0f;
  x[9] = x[1] = 1.0f;
  EXPECT_EQ(sum_of_squares(x.data(), 17), 16777218.0f);
}

TEST(Rotate, TurnsByTheAngle) {
  const RotatedPair pair = rotate(3.0f, 4.0f, 0.0f, 1.0f);
  EXPECT_EQ(pair.first, -4.0f);
  EXPECT_EQ(pair.second, 3.0f);
}

}  // namespace
}  // namespace atom::numerics
