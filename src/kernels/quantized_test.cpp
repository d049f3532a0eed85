#include "kernels/quantized.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

ActivationSpec spec_of(int64_t k, int64_t n_outlier, int64_t group, OutlierType type = OutlierType::int8) {
  return {{k, n_outlier, group, type}, 4, 1.0f};
}

/// Fills everything that a kernel may write, as a kernel would.
void fill(QuantizedActivations& a) {
  for (int64_t t = 0; t < a.tokens(); ++t) {
    for (int64_t i = 0; i < a.layout().k_normal(); ++i) a.values(t)[i] = -1;
    if (a.layout().outlier_type == OutlierType::fp16) continue;
    for (int64_t i = 0; i < a.layout().n_outlier; ++i) a.values(t)[a.outlier_offset() + i] = -1;
  }
}

void expect_zero_padding(const QuantizedActivations& a) {
  const ChannelLayout& layout = a.layout();
  const bool in_values = layout.outlier_type == OutlierType::int8;
  for (int64_t t = 0; t < a.tokens(); ++t) {
    for (int64_t i = layout.k_normal(); i < a.stride(); ++i) {
      const bool outlier = in_values && i >= a.outlier_offset() && i < a.outlier_offset() + layout.n_outlier;
      if (outlier) continue;
      ASSERT_EQ(a.values(t)[i], 0) << "token " << t << " byte " << i;
    }
  }
}

TEST(ChannelLayout, CountsGroups) {
  EXPECT_EQ((ChannelLayout{576, 64, 128}.groups()), 4);
  EXPECT_EQ((ChannelLayout{576, 0, 128}.groups()), 5);
  EXPECT_EQ((ChannelLayout{64, 64, 128}.groups()), 0);
  EXPECT_EQ((ChannelLayout{100, 0, 100}.groups()), 1);
}

TEST(QuantizedActivations, OffsetsAreMultiplesOf64) {
  QuantizedActivations a;
  a.resize(3, spec_of(100, 7, 32));
  EXPECT_EQ(a.outlier_offset(), 128);
  EXPECT_EQ(a.stride(), 192);
  EXPECT_EQ(a.scale_stride(), 4);
  EXPECT_EQ(a.values(2) - a.values(0), 2 * a.stride());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.values(0)) % 64, 0u);
  a.resize(1, spec_of(64, 64, 32));
  EXPECT_EQ(a.outlier_offset(), 0);
  EXPECT_EQ(a.stride(), 64);
}

TEST(QuantizedActivations, PaddingIsZeroAfterEveryChangeOfShape) {
  const ActivationSpec specs[] = {spec_of(100, 7, 32),
                                  spec_of(100, 9, 32),
                                  spec_of(576, 64, 128),
                                  spec_of(33, 0, 128),
                                  spec_of(100, 7, 32, OutlierType::fp16),
                                  spec_of(128, 128, 16),
                                  spec_of(70, 1, 70)};
  QuantizedActivations a;
  for (const int64_t tokens : {1, 5, 2, 40, 3}) {
    for (const ActivationSpec& first : specs) {
      for (const ActivationSpec& second : specs) {
        a.resize(tokens, first);
        fill(a);
        expect_zero_padding(a);
        a.resize(tokens + 3, second);
        expect_zero_padding(a);
        fill(a);
        a.resize(1, second);
        expect_zero_padding(a);
      }
    }
  }
}

TEST(QuantizedActivations, HasUnitsWithIntegerScales) {
  ActivationSpec spec = spec_of(576, 64, 128);
  QuantizedActivations a;
  a.resize(3, spec);
  EXPECT_EQ(a.unit(2), 1.0f);
  spec.layout.integer_scales = true;
  a.resize(5, spec);
  for (int64_t t = 0; t < 5; ++t) a.units()[t] = static_cast<float>(t) + 0.5f;
  EXPECT_EQ(a.unit(4), 4.5f);
  fill(a);
  expect_zero_padding(a);
  // The same memory with another meaning.
  a.resize(5, spec_of(576, 64, 128));
  EXPECT_EQ(a.unit(4), 1.0f);
  expect_zero_padding(a);
}

TEST(QuantizedActivations, KeepsMemoryWhenItShrinks) {
  QuantizedActivations a;
  a.resize(64, spec_of(576, 64, 128));
  const int8_t* before = a.values(0);
  a.resize(1, spec_of(576, 64, 128));
  EXPECT_EQ(a.values(0), before);
  EXPECT_EQ(a.tokens(), 1);
}

}  // namespace
}  // namespace atom
