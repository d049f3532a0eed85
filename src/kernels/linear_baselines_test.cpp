#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops.h"
#include "kernels/random_operands.h"
#include "tensor/float8.h"
#include "tensor/half.h"

// The linear layers of the baselines on the CPU: W4A16 (LinearWeightOnly) and FP8 (LinearLowBit of FP8
// outliers alone). W8A8 is LinearLowBit without normal channels: linear_low_bit_test.cpp has it.

namespace atom {
namespace {

const CpuIsa kLevels[] = {CpuIsa::reference, CpuIsa::avx2, CpuIsa::avx512};

/// Rows of x and y are longer than their columns, so that a store beyond the last one is seen.
constexpr int64_t kPad = 3;

std::vector<float> random_floats(uint64_t seed, int64_t count) {
  Random random(seed);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = static_cast<float>(random.uniform() - 0.5);
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// fp16(q * scale) of a canonical weight.
float weight_of(const LowBitWeight& w, int64_t row, int64_t k) {
  const int nibble = w.values[row * w.row_bytes() + k / 2] >> (k % 2 * 4) & 0xF;
  const float scale = half_to_float(w.scales[row * w.layout.groups() + k / w.layout.group]);
  return round_to_half(static_cast<float>(nibble >= 8 ? nibble - 16 : nibble) * scale);
}

TEST(LinearWeightOnly, EveryLevelKeepsTheChainOfTheContract) {
  struct Shape {
    int64_t m, n, k, group;
  };
  uint64_t seed = 0;
  for (const auto& [m, n, k, group] : {Shape{1, 1, 1, 128}, Shape{1, 33, 128, 128}, Shape{3, 17, 300, 128},
                                       Shape{5, 70, 576, 64}, Shape{2, 9, 95, 7}, Shape{140, 40, 256, 128}}) {
    for (const bool accumulate : {false, true}) {
      const std::string what = "m " + std::to_string(m) + " n " + std::to_string(n) + " k " +
                               std::to_string(k) + " group " + std::to_string(group);
      ChannelLayout layout{k, 0, group};
      const PreparedWeight prepared = random_weight({}, n, layout, 16, ++seed);
      const std::vector<float> x = random_floats(++seed, m * (k + kPad));
      const std::vector<float> before = random_floats(++seed, m * (n + kPad));
      std::vector<float> expected = before;
      for (int64_t t = 0; t < m; ++t) {
        for (int64_t row = 0; row < n; ++row) {
          float acc = 0.0f;
          for (int64_t i = 0; i < k; ++i) {
            acc =
                std::fma(x[static_cast<size_t>(t * (k + kPad) + i)], weight_of(prepared.view(), row, i), acc);
          }
          float& y = expected[static_cast<size_t>(t * (n + kPad) + row)];
          y = accumulate ? y + acc : acc;
        }
      }
      for (const CpuIsa isa : kLevels) {
        if (isa > detect_cpu_isa()) continue;
        const DeviceContext device{nullptr, isa};
        EXPECT_EQ(choose_layout(device, n, layout, 16), WeightLayout::canonical);
        std::vector<float> y = before;
        const LinearWeightOnly op{MatrixView<const float>(x.data(), m, k, k + kPad),
                                  &prepared,
                                  {y.data(), m, n, n + kPad},
                                  accumulate};
        EXPECT_STREQ(select(device, op).name, isa == CpuIsa::reference ? "reference" : "dequantize");
        run(device, op);
        EXPECT_TRUE(same_bits(y, expected)) << what << " on " << name_of(isa);
      }
    }
  }
}

ActivationSpec float8_spec(int64_t k, float scale) {
  ActivationSpec spec;
  spec.layout = {k, k, 128, OutlierType::fp8};
  spec.bits = 8;
  spec.scale = scale;
  return spec;
}

TEST(QuantizeFloat8, HasTheGivenScaleAndSaturates) {
  const std::vector<float> x = {0.0f, 1.0f, -0.3f, 17.0f, 1e6f, -1e6f, NAN, 0.001f};
  QuantizedActivations q;
  q.resize(1, float8_spec(8, 0.0625f));
  for (const CpuIsa isa : kLevels) {
    if (isa > detect_cpu_isa()) continue;
    const ReorderQuantize op{MatrixView<const float>(x.data(), 1, 8), nullptr, &q};
    EXPECT_STREQ(select(DeviceContext{nullptr, isa}, op).name, "reference");
    run({nullptr, isa}, op);
    EXPECT_EQ(q.scales(0)[0], 0.0625f);
    EXPECT_EQ(q.sums(0)[0], 0);
    const float expected[] = {0.0f, 16.0f, -5.0f, 272.0f, 448.0f, -448.0f, -448.0f, 0.015625f};
    for (int i = 0; i < 8; ++i) {
      const float found = float8_to_float(static_cast<uint8_t>(q.values(0)[i]));
      EXPECT_NEAR(found, expected[i], std::fabs(expected[i]) / 16) << i;
      if (i != 2 && i != 3 && i != 7) {
        EXPECT_EQ(found, expected[i]) << i;
      }
    }
  }
}

TEST(LinearFloat8, IsAFloatChainTimesBothScales) {
  const int64_t m = 3, n = 21, k = 200;
  const ActivationSpec spec = float8_spec(k, 0.125f);
  const PreparedWeight w = random_weight({}, n, spec.layout, 8, 5);
  const std::vector<float> x = random_floats(6, m * k);
  QuantizedActivations q;
  q.resize(m, spec);
  run({}, ReorderQuantize{MatrixView<const float>(x.data(), m, k), nullptr, &q});
  const std::vector<float> before = random_floats(7, m * n);
  std::vector<float> expected = before;
  double error = 0, norm = 0;
  for (int64_t t = 0; t < m; ++t) {
    for (int64_t row = 0; row < n; ++row) {
      const float scale = half_to_float(w.outlier_scales[static_cast<size_t>(row)]);
      float sum = 0.0f;
      double exact = 0.0;
      for (int64_t i = 0; i < k; ++i) {
        const float qw = float8_to_float(static_cast<uint8_t>(w.outliers[static_cast<size_t>(row * k + i)]));
        sum = std::fma(float8_to_float(static_cast<uint8_t>(q.values(t)[i])), qw, sum);
        exact += double{x[static_cast<size_t>(t * k + i)]} * double{qw} * double{scale};
      }
      const auto at = static_cast<size_t>(t * n + row);
      expected[at] = before[at] + std::fma(sum, 0.125f * scale, 0.0f);
      error += std::pow(double{expected[at]} - double{before[at]} - exact, 2);
      norm += exact * exact;
    }
  }
  // What rounding the activations to three bits of mantissa costs.
  EXPECT_LT(std::sqrt(error / norm), 0.05);
  EXPECT_GT(norm, 0);
  for (const CpuIsa isa : kLevels) {
    if (isa > detect_cpu_isa()) continue;
    const DeviceContext device{nullptr, isa};
    const PreparedWeight prepared = prepare(device, w.view(), 8);
    std::vector<float> y = before;
    run(device, LinearLowBit{&q, &prepared, {y.data(), m, n}, true});
    EXPECT_TRUE(same_bits(y, expected)) << name_of(isa);
  }
}

}  // namespace
}  // namespace atom
