#include "tensor/float8.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace atom {
namespace {

TEST(Float8, EveryValueIsWhatTheFormatSays) {
  for (int bits = 0; bits < 128; ++bits) {
    const int exponent = bits >> 3, mantissa = bits & 7;
    const float expected = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                         : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if (bits == 127) {
      EXPECT_TRUE(std::isnan(float8_to_float(127)) && std::isnan(float8_to_float(255)));
      continue;
    }
    EXPECT_EQ(float8_to_float(static_cast<uint8_t>(bits)), expected);
    EXPECT_EQ(float8_to_float(static_cast<uint8_t>(bits | 0x80)), -expected);
    EXPECT_EQ(float_to_float8(expected), bits);
    EXPECT_EQ(float_to_float8(-expected), bits | 0x80);
  }
  EXPECT_EQ(float8_to_float(0x7E), kFloat8Max);
}

TEST(Float8, RoundsToNearestEven) {
  for (int bits = 0; bits < 0x7E; ++bits) {
    const float low = float8_to_float(static_cast<uint8_t>(bits));
    const float high = float8_to_float(static_cast<uint8_t>(bits + 1));
    const float middle = (low + high) / 2;  // exact
    EXPECT_EQ(float_to_float8(middle), bits % 2 == 0 ? bits : bits + 1) << middle;
    EXPECT_EQ(float_to_float8(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(float_to_float8(std::nextafter(middle, 1e9f)), bits + 1);
  }
}

TEST(Float8, SaturatesAndKeepsNan) {
  EXPECT_EQ(float_to_float8(449.0f), 0x7E);
  EXPECT_EQ(float_to_float8(1e30f), 0x7E);
  EXPECT_EQ(float_to_float8(-std::numeric_limits<float>::infinity()), 0xFE);
  EXPECT_TRUE(std::isnan(float8_to_float(float_to_float8(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(float_to_float8(1e-30f), 0);
  EXPECT_EQ(float_to_float8(-0.0f), 0x80);
}

}  // namespace
}  // namespace atom
