#include "kernels/integer_scales.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "tensor/half.h"

namespace atom::integer_scales {
namespace {

constexpr uint16_t kLargestHalf = 0x7BFF;

/// Whether x is a value of fp16.
bool is_half(float x) {
  return round_to_half(x) == x;
}

TEST(IntegerScales, StepsAreTheValue) {
  for (uint32_t h = 0; h <= kLargestHalf; ++h) {
    const auto half = static_cast<uint16_t>(h);
    ASSERT_EQ(from_steps(steps_of(half)), half_to_float(half)) << h;
  }
}

TEST(IntegerScales, RowsGiveBackTheirMultipliers) {
  Random random(1);
  for (int round = 0; round < 20000; ++round) {
    // A unit of 7 bits, or a subnormal, in steps of 2^-24; 16 times it is finite.
    const int64_t unit = random.below(4) == 0
                             ? static_cast<int64_t>(1 + random.below(127))
                             : static_cast<int64_t>(64 + random.below(64)) << random.below(29);
    const auto half_of = [unit](int64_t multiplier) { return float_to_half(from_steps(unit * multiplier)); };
    std::vector<int64_t> drawn;
    std::vector<uint16_t> scales;
    for (uint64_t g = 0, groups = 1 + random.below(40); g < groups; ++g) {
      drawn.push_back(static_cast<int64_t>(random.below(17)));
      scales.push_back(half_of(drawn.back()));
    }
    const auto outlier_multiplier = static_cast<int64_t>(random.below(5));
    const uint16_t outlier = half_of(outlier_multiplier);
    const int64_t divisor =
        std::accumulate(drawn.begin(), drawn.end(), outlier_multiplier, std::gcd<int64_t, int64_t>);

    const auto groups = static_cast<int64_t>(scales.size());
    const int64_t found = unit_steps(scales.data(), groups, outlier);
    ASSERT_EQ(found, unit * divisor);
    ASSERT_TRUE(are_integer(scales.data(), groups, outlier));
    for (size_t g = 0; g < scales.size(); ++g) {
      const int64_t multiplier = multiplier_of(scales[g], found);
      ASSERT_EQ(multiplier, divisor == 0 ? 0 : drawn[g] / divisor);
      ASSERT_EQ(from_steps(found) * static_cast<float>(multiplier), half_to_float(scales[g]));
    }
    ASSERT_EQ(multiplier_of(outlier, found), divisor == 0 ? 0 : outlier_multiplier / divisor);
  }
}

TEST(IntegerScales, TellsOtherRowsApart) {
  const auto are = [](std::vector<float> scales, float outlier) {
    std::vector<uint16_t> halves;
    for (const float scale : scales) halves.push_back(float_to_half(scale));
    return are_integer(halves.data(), static_cast<int64_t>(halves.size()), float_to_half(outlier));
  };
  EXPECT_TRUE(are({0.25f, 4.0f, 0.75f}, 1.0f));
  EXPECT_TRUE(are({0.0f, 0.0f}, 0.0f));
  EXPECT_TRUE(are({0.3f}, 0.0f));
  EXPECT_FALSE(are({0.25f, 4.25f}, 0.0f)) << "17 units";
  EXPECT_FALSE(are({0.25f}, 1.25f)) << "outliers of 5 units";
  EXPECT_FALSE(are({0.25f, -0.25f}, 0.0f));
  EXPECT_FALSE(are({0.25f}, -0.25f));
  EXPECT_FALSE(are({0.1f, 0.2001f, 0.3f}, 0.0f));
}

/// All multiples are values of fp16, and no smaller unit has that and reaches far enough.
void check_weight_unit(float largest, float outlier) {
  const double least = std::max(static_cast<double>(largest) / 16, static_cast<double>(outlier) / 4);
  const float unit = weight_unit(largest, outlier);
  ASSERT_GE(unit, least);
  for (int m = 1; m <= kMostOfGroup; ++m) {
    const float multiple = unit * static_cast<float>(m);
    ASSERT_TRUE(multiple > numerics::kHalfMax || is_half(multiple)) << unit << " * " << m;
  }
  if (unit == 0) return;
  // The candidate before it: the spacing of 7 bits is halved below a power of two.
  int exponent = 0;
  const bool power_of_two = std::frexp(unit, &exponent) == 0.5f;
  const double step = std::ldexp(1.0, exponent - (power_of_two ? 8 : 7));
  ASSERT_LT(unit - std::max(step, 0x1p-24), least);
}

TEST(IntegerScales, WeightUnitsHaveExactMultiples) {
  EXPECT_EQ(weight_unit(0.0f, 0.0f), 0.0f);
  for (uint32_t h = 0; h <= kLargestHalf; ++h) {
    check_weight_unit(half_to_float(static_cast<uint16_t>(h)), 0.0f);
    check_weight_unit(0.0f, half_to_float(static_cast<uint16_t>(h)));
  }
  Random random(2);
  for (int i = 0; i < 50000; ++i) {
    const auto draw = [&] { return half_to_float(static_cast<uint16_t>(random.below(kLargestHalf + 1u))); };
    const float largest = draw();
    check_weight_unit(largest, draw());
  }
}

TEST(IntegerScales, MultipliersOfActivations) {
  Random random(3);
  for (int i = 0; i < 100000; ++i) {
    const auto draw = [&] {
      return random.below(20) == 0 ? 0.0f
                                   : half_to_float(static_cast<uint16_t>(random.below(kLargestHalf + 1u)));
    };
    const int bits = random.below(2) == 0 ? 4 : 8;
    const int most = most_of_activations(bits);
    const float largest = draw(), outlier = draw();
    const float unit = activation_unit(largest, outlier, most);
    ASSERT_EQ(unit, std::max(static_cast<double>(largest) / most, static_cast<double>(outlier) / 64));
    const float inverse = numerics::inverse_scale(unit);

    const float any = largest * static_cast<float>(random.uniform());
    for (const float scale : {largest, any}) {
      const float multiplier = group_multiplier(scale, inverse, most);
      ASSERT_EQ(multiplier, std::nearbyint(multiplier));
      ASSERT_GE(multiplier, 1.0f);
      ASSERT_LE(multiplier, static_cast<float>(most));
      ASSERT_TRUE(scale < unit || std::fabs(multiplier * unit - scale) <= 0.5001f * unit);
    }
    const float multiplier = outlier_multiplier(outlier, inverse, kMostOfOutlierActivations);
    ASSERT_EQ(multiplier, std::nearbyint(multiplier));
    ASSERT_GE(multiplier, 1.0f);
    ASSERT_LE(multiplier, 64.0f);
    ASSERT_GE(multiplier * unit, outlier) << "outliers are not clipped";
    ASSERT_TRUE(multiplier == 1 || (multiplier - 1) * unit <= outlier);
  }
}

TEST(IntegerScales, FitsAsLongAsTheLargestSumIsWithinInt32) {
  for (const int64_t k_normal : {0, 1, 128, 4096, 28672, 131071, 131072}) {
    for (int64_t n_outlier = 0; n_outlier < 600; ++n_outlier) {
      // |q k| is 8 * 16 at most, of outliers 127 * 4 and 127 * 64.
      const int64_t largest = k_normal * 128 * 128 + n_outlier * (127 * 4) * (127 * 64);
      ASSERT_EQ(fits(k_normal, n_outlier), largest < int64_t{1} << 31);
    }
  }
  EXPECT_TRUE(fits(4096, 128));
  EXPECT_TRUE(fits(28672, 128));
}

}  // namespace
}  // namespace atom::integer_scales
