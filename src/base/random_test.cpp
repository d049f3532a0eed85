#include "base/random.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

TEST(Random, IsSplitMix64) {
  // First outputs for seed 1234567, as published with the generator.
  Random random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
  EXPECT_EQ(random.next(), 9817491932198370423u);
}

TEST(Random, UniformAndBelowStayInRangeAndCoverIt) {
  Random random(1);
  double sum = 0;
  int counts[7] = {};
  for (int i = 0; i < 70'000; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    ++counts[random.below(7)];
  }
  EXPECT_NEAR(sum / 70'000, 0.5, 0.01);
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
  EXPECT_EQ(random.below(1), 0u);
  EXPECT_LT(random.below(uint64_t{1} << 63), uint64_t{1} << 63);
}

}  // namespace
}  // namespace atom
