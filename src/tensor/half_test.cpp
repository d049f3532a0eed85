#include "tensor/half.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace atom {
namespace {

/// The value of a binary16, from the definition of the format.
double half_by_definition(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  const double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryPatternWidensExactlyAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    const double truth = half_by_definition(h);
    const float widened = half_to_float(h);
    if (std::isnan(truth)) {
      ASSERT_TRUE(std::isnan(widened)) << bits;
      ASSERT_TRUE(std::isnan(half_to_float(float_to_half(widened)))) << bits;
      continue;
    }
    ASSERT_EQ(widened, truth) << bits;
    ASSERT_EQ(std::signbit(widened), std::signbit(truth)) << bits;
    ASSERT_EQ(float_to_half(widened), h) << bits;
  }
}

TEST(Half, RoundsToNearestEvenBetweenAllNeighbours) {
  // Positive finite values are ordered as their patterns are; 0x7C00 stands for 2^16 in the last interval.
  for (uint32_t bits = 0; bits < 0x7C00; ++bits) {
    const double low = half_by_definition(static_cast<uint16_t>(bits));
    const double high = bits + 1 == 0x7C00 ? 65536.0 : half_by_definition(static_cast<uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    const auto even = static_cast<uint16_t>(bits + (bits & 1));
    const float below = std::nextafter(middle, 0.0f);
    const float above = std::nextafter(middle, std::numeric_limits<float>::infinity());
    for (const uint16_t sign : {uint16_t{0}, uint16_t{0x8000}}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      ASSERT_EQ(float_to_half(s * middle), sign | even) << bits;
      ASSERT_EQ(float_to_half(s * below), sign | bits) << bits;
      ASSERT_EQ(float_to_half(s * above), sign | (bits + 1)) << bits;
    }
  }
}

TEST(Half, ExtremesOfFloat) {
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::max()), 0x7C00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xFC00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
  EXPECT_TRUE(std::isnan(round_to_half(std::numeric_limits<float>::quiet_NaN())));
  // A NaN whose payload lies wholly in the bits that are cut must not become infinity.
  EXPECT_TRUE(std::isnan(round_to_half(std::bit_cast<float>(0x7F800001u))));
  EXPECT_EQ(round_to_half(65504.0f), 65504.0f);
}

TEST(Bfloat16, EveryPatternComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    const float widened = bfloat16_to_float(b);
    ASSERT_EQ(std::bit_cast<uint32_t>(widened), bits << 16);
    if (std::isnan(widened)) {
      ASSERT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(widened))));
    } else {
      ASSERT_EQ(float_to_bfloat16(widened), b);
    }
  }
}

TEST(Bfloat16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3F808000u)), 0x3F80);
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0xFFFFFFFFu)))));
}

}  // namespace
}  // namespace atom
