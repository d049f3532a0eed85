#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/quant_ops.h"

// QuantizationLoss against sums in double, with both forms of scales.
namespace atom {
namespace {

Matrix<float> random_matrix(Random& random, int64_t rows, int64_t cols) {
  Matrix<float> out(rows, cols);
  for (float& x : out.span()) x = static_cast<float>(random.uniform() - 0.5);
  return out;
}

TEST(QuantizationLoss, EqualsTheSumInDouble) {
  const DeviceContext device{nullptr, detect_cpu_isa()};
  Random random(1);
  for (const ChannelLayout& layout :
       {ChannelLayout{200, 24, 64}, ChannelLayout{200, 0, 64},
        ChannelLayout{200, 24, 64, OutlierType::int8, true},
        ChannelLayout{200, 0, 64, OutlierType::int8, true}, ChannelLayout{200, 24, 64, OutlierType::fp16}}) {
    const int64_t tokens = 70, n = 9;
    const Matrix<float> x = random_matrix(random, tokens, layout.k);
    const Matrix<float> weight = random_matrix(random, n, layout.k);
    const auto permutation = random_permutation(random, layout.k);
    QuantizedActivations quantized;
    quantized.resize(tokens, {layout, 4, 0.9f});
    run(device, ReorderQuantize{x.view(), permutation.data(), &quantized});

    const auto read_back = [&](int64_t t, int64_t c) -> double {
      const double unit = layout.integer_scales ? quantized.units()[t] : 1.0f;
      if (c < layout.k_normal())
        return quantized.values(t)[c] * (quantized.scales(t)[c / layout.group] * unit);
      const int64_t i = c - layout.k_normal();
      if (layout.outlier_type == OutlierType::fp16) return quantized.outliers_fp16(t)[i];
      return quantized.values(t)[quantized.outlier_offset() + i] *
             (quantized.scales(t)[layout.groups()] * unit);
    };
    double expected = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < n; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < layout.k; ++c) {
          const double lost = x(t, permutation[static_cast<size_t>(c)]) - read_back(t, c);
          sum += lost * static_cast<double>(weight(r, c));
        }
        expected += sum * sum;
      }
    }
    double loss = 0;
    run(device, QuantizationLoss{x.view(), permutation.data(), &quantized, weight.view(), &loss});
    EXPECT_GT(loss, 0);
    EXPECT_NEAR(loss, expected, 1e-4 * expected);
  }
}

}  // namespace
}  // namespace atom
