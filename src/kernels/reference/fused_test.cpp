#include "kernels/reference/fused.h"

#include <algorithm>

#include "kernels/fused_test_support.h"
#include "tensor/half.h"

// The reference ops against plain double-precision arithmetic.
namespace atom::reference {
namespace {

using namespace fused_test;

std::vector<double> norm_in_double(const float* x, const float* weight, int64_t n, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  std::vector<double> out(static_cast<size_t>(n));
  const double factor = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = x[i] * factor * weight[i];
  return out;
}

double largest_magnitude(const std::vector<double>& x) {
  double max_abs = 0;
  for (const double value : x) max_abs = std::max(max_abs, std::fabs(value));
  return max_abs;
}

/// Checks the error of every value of channels that share a scale, and the sum.
void check_values(const std::vector<double>& truth, const int8_t* values, double scale, int32_t sum, int low,
                  int high) {
  int32_t expected_sum = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const int q = values[i];
    expected_sum += q;
    ASSERT_GE(q, low);
    ASSERT_LE(q, high);
    // Half a step, unless the value lies beyond the ends and was saturated.
    const double bounded = std::clamp(truth[i], (low - 0.5) * scale, (high + 0.5) * scale);
    ASSERT_LE(std::fabs(bounded - q * scale), 0.5 * scale + 1e-5 * largest_magnitude(truth))
        << "channel " << i << ' ' << truth[i];
  }
  ASSERT_EQ(sum, expected_sum);
}

/// Checks one range of channels that shares a scale: the scale, the error of every value, the sum.
void check_range(const std::vector<double>& truth, const int8_t* values, float scale, int32_t sum,
                 double clip, int low, int high) {
  const double expected = clip * largest_magnitude(truth) / high;
  ASSERT_EQ(scale, round_to_half(scale));
  ASSERT_NEAR(scale, expected, expected * 0x1p-10 + 0x1p-25);
  check_values(truth, values, scale, sum, low, high);
}

/// Checks a token with integer scales: the unit lets the largest multipliers reach the largest scales; a
/// group's multiplier is the nearest, that of the outliers the first that reaches their scale.
void check_integer_token(const QuantizedActivations& out, int64_t t, const std::vector<double>& truth) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  const int high = spec.bits == 4 ? 7 : 127;
  const int low = spec.bits == 4 ? -8 : -127;
  const int most = spec.bits == 4 ? 16 : 1;
  std::vector<std::vector<double>> ranges;
  std::vector<double> wanted;
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const int64_t end = std::min((g + 1) * layout.group, layout.k_normal());
    ranges.emplace_back(truth.begin() + g * layout.group, truth.begin() + end);
    wanted.push_back(spec.clip * largest_magnitude(ranges.back()) / high);
  }
  const std::vector<double> outliers(truth.begin() + layout.k_normal(), truth.end());
  const double outlier = largest_magnitude(outliers) / 127;
  const double largest = wanted.empty() ? 0.0 : *std::max_element(wanted.begin(), wanted.end());

  const double unit = out.unit(t);
  const double expected_unit = std::max(largest / most, outlier / 64);
  ASSERT_NEAR(unit, expected_unit, expected_unit * 0x1p-10 + 0x1p-25);
  for (size_t g = 0; g < wanted.size(); ++g) {
    const double multiplier = out.scales(t)[g];
    ASSERT_EQ(multiplier, std::nearbyint(multiplier));
    ASSERT_GE(multiplier, 1);
    ASSERT_LE(multiplier, most);
    // Rounding of the scale and the unit to fp16 moves a tie a little.
    const double distance = std::fabs(multiplier * unit - wanted[g]);
    ASSERT_TRUE((multiplier == 1 && wanted[g] <= unit) || distance <= 0.55 * unit);
    check_values(ranges[g], out.values(t) + static_cast<int64_t>(g) * layout.group, multiplier * unit,
                 out.sums(t)[g], low, high);
  }
  const double multiplier = out.scales(t)[layout.groups()];
  ASSERT_EQ(multiplier, std::nearbyint(multiplier));
  ASSERT_GE(multiplier, 1);
  ASSERT_LE(multiplier, 64);
  ASSERT_GE(multiplier * unit, outlier * (1 - 0x1p-9));
  ASSERT_TRUE(multiplier == 1 || (multiplier - 1) * unit <= outlier * (1 + 0x1p-9));
  check_values(outliers, out.values(t) + out.outlier_offset(), multiplier * unit,
               out.sums(t)[layout.groups()], -127, 127);
}

/// Checks a token whose channels in the layer's order are `truth`.
void check_token(const QuantizedActivations& out, int64_t t, const std::vector<double>& truth) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  if (layout.integer_scales) return check_integer_token(out, t, truth);
  const int high = spec.bits == 4 ? 7 : 127;
  const int low = spec.bits == 4 ? -8 : -127;
  const auto range = [&](int64_t begin, int64_t end) {
    return std::vector<double>(truth.begin() + begin, truth.begin() + end);
  };
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const int64_t begin = g * layout.group;
    const int64_t end = std::min(begin + layout.group, layout.k_normal());
    check_range(range(begin, end), out.values(t) + begin, out.scales(t)[g], out.sums(t)[g], spec.clip, low,
                high);
  }
  const int64_t last = layout.groups();
  if (layout.outlier_type == OutlierType::fp16 || layout.n_outlier == 0) {
    EXPECT_EQ(out.scales(t)[last], 0.0f);
    EXPECT_EQ(out.sums(t)[last], 0);
    for (int64_t i = 0; i < layout.n_outlier && layout.outlier_type == OutlierType::fp16; ++i) {
      const double x = truth[static_cast<size_t>(layout.k_normal() + i)];
      EXPECT_NEAR(out.outliers_fp16(t)[i], x, std::fabs(x) * 0x1p-10 + 1e-7);
      EXPECT_EQ(out.outliers_fp16(t)[i], round_to_half(out.outliers_fp16(t)[i]));
    }
  } else {
    check_range(range(layout.k_normal(), layout.k), out.values(t) + out.outlier_offset(), out.scales(t)[last],
                out.sums(t)[last], 1.0, -127, 127);
  }
}

const ActivationSpec kSpecs[] = {
    {{576, 64, 128, OutlierType::int8}, 4, 0.9f},       {{576, 64, 128, OutlierType::fp16}, 4, 0.9f},
    {{576, 0, 128, OutlierType::int8}, 4, 1.0f},        {{576, 0, 576, OutlierType::int8}, 4, 1.0f},
    {{100, 7, 32, OutlierType::int8}, 8, 1.0f},         {{64, 64, 128, OutlierType::int8}, 4, 0.9f},
    {{33, 1, 5, OutlierType::fp16}, 8, 0.8f},           {{1, 0, 128, OutlierType::int8}, 4, 1.0f},
    {{576, 64, 128, OutlierType::int8, true}, 4, 0.9f}, {{576, 0, 128, OutlierType::int8, true}, 4, 1.0f},
    {{576, 0, 576, OutlierType::int8, true}, 8, 1.0f},  {{100, 7, 32, OutlierType::int8, true}, 8, 1.0f},
    {{203, 40, 5, OutlierType::int8, true}, 4, 0.8f},   {{1, 0, 128, OutlierType::int8, true}, 4, 1.0f},
};

TEST(ReferenceFused, EmbeddingLookupWidensExactly) {
  Random random(1);
  const int64_t hidden = 33;
  const Matrix<float> table = random_matrix(random, 9, hidden);
  std::vector<uint16_t> half, bfloat16;
  for (const float x : table.span()) {
    half.push_back(float_to_half(x));
    bfloat16.push_back(float_to_bfloat16(x));
  }
  const std::vector<int32_t> tokens = {8, 0, 3, 3};
  Matrix<float> out(4, hidden);
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t i = 0; i < hidden; ++i) {
      const int64_t at = tokens[static_cast<size_t>(t)] * hidden + i;
      embedding_lookup({}, {tokens, DType::f32, table.data(), out.view()});
      EXPECT_EQ(out(t, i), table.data()[at]);
      embedding_lookup({}, {tokens, DType::f16, half.data(), out.view()});
      EXPECT_EQ(out(t, i), half_to_float(half[static_cast<size_t>(at)]));
      embedding_lookup({}, {tokens, DType::bf16, bfloat16.data(), out.view()});
      EXPECT_EQ(out(t, i), bfloat16_to_float(bfloat16[static_cast<size_t>(at)]));
    }
  }
}

TEST(ReferenceFused, RmsNormMatchesDouble) {
  Random random(2);
  for (const int64_t n : {1, 3, 16, 33, 576, 4096}) {
    const Matrix<float> x = random_matrix(random, 3, n, Kind::outliers);
    const Matrix<float> weight = random_matrix(random, 1, n);
    Matrix<float> out(3, n);
    rms_norm({}, {x.view(), weight.data(), 1e-5f, out.view()});
    for (int64_t t = 0; t < 3; ++t) {
      const auto truth = norm_in_double(x.row(t), weight.data(), n, 1e-5);
      for (int64_t i = 0; i < n; ++i) {
        const double expected = truth[static_cast<size_t>(i)];
        EXPECT_NEAR(out(t, i), expected, std::fabs(expected) * 2e-6 + 1e-12);
      }
    }
  }
}

TEST(ReferenceFused, HeadNormIsTheNormOfEveryHead) {
  Random random(6);
  constexpr int64_t kHeadDim = 24, kCols = 3 * kHeadDim;
  Matrix<float> x = random_matrix(random, 2, kCols + 1);
  const std::vector<float> before(x.span().begin(), x.span().end());
  const Matrix<float> bias = random_matrix(random, 1, kCols), weight = random_matrix(random, 1, kHeadDim);
  const MatrixView<float> heads = x.view().col_range(0, kCols);
  add_bias({}, {heads, bias.data()});
  head_norm({}, {heads, kHeadDim, weight.data(), 1e-5f});
  for (int64_t t = 0; t < 2; ++t) {
    const float* row = before.data() + t * (kCols + 1);
    EXPECT_EQ(x(t, kCols), row[kCols]);
    for (int64_t head = 0; head < kCols; head += kHeadDim) {
      std::vector<float> sum;
      for (int64_t i = head; i < head + kHeadDim; ++i) sum.push_back(row[i] + bias(0, i));
      const auto truth = norm_in_double(sum.data(), weight.data(), kHeadDim, 1e-5);
      for (int64_t i = 0; i < kHeadDim; ++i) {
        EXPECT_NEAR(x(t, head + i), truth[static_cast<size_t>(i)], 2e-6);
      }
    }
  }
}

TEST(ReferenceFused, RmsNormQuantizeMatchesDouble) {
  Random random(3);
  for (const ActivationSpec& spec : kSpecs) {
    const int64_t k = spec.layout.k;
    const Matrix<float> x = random_matrix(random, 4, k, Kind::outliers);
    const Matrix<float> weight = random_matrix(random, 1, k);
    const auto permutation = random_permutation(random, k);
    QuantizedActivations out;
    for (const bool reorder : {false, true}) {
      out.resize(4, spec);
      rms_norm_quantize({}, {x.view(), weight.data(), 1e-5f, reorder ? permutation.data() : nullptr, &out});
      for (int64_t t = 0; t < 4; ++t) {
        const auto norm = norm_in_double(x.row(t), weight.data(), k, 1e-5);
        std::vector<double> truth = norm;
        for (size_t i = 0; reorder && i < truth.size(); ++i) {
          truth[i] = norm[static_cast<size_t>(permutation[i])];
        }
        check_token(out, t, truth);
      }
    }
  }
}

TEST(ReferenceFused, ReorderQuantizeMatchesDouble) {
  Random random(4);
  for (const ActivationSpec& spec : kSpecs) {
    const int64_t k = spec.layout.k;
    for (const Kind kind : {Kind::normal, Kind::outliers, Kind::ties, Kind::zeros}) {
      const Matrix<float> x = random_matrix(random, 2, k, kind);
      const auto permutation = random_permutation(random, k);
      QuantizedActivations out;
      out.resize(2, spec);
      reorder_quantize({}, {x.view(), permutation.data(), &out});
      for (int64_t t = 0; t < 2; ++t) {
        std::vector<double> truth;
        for (const int32_t channel : permutation) truth.push_back(x(t, channel));
        check_token(out, t, truth);
      }
    }
  }
}

TEST(ReferenceFused, SiluMulAndItsQuantizationMatchDouble) {
  Random random(5);
  for (const ActivationSpec& spec : kSpecs) {
    const int64_t inner = spec.layout.k;
    const Matrix<float> gate_up = random_matrix(random, 3, 2 * inner, Kind::outliers);
    Matrix<float> product(3, inner);
    silu_mul({}, {gate_up.view(), product.view()});
    QuantizedActivations out;
    out.resize(3, spec);
    silu_mul_quantize({}, {gate_up.view(), &out});
    for (int64_t t = 0; t < 3; ++t) {
      std::vector<double> truth;
      for (int64_t i = 0; i < inner; ++i) {
        const double gate = gate_up(t, i);
        truth.push_back(gate / (1 + std::exp(-gate)) * gate_up(t, inner + i));
        EXPECT_NEAR(product(t, i), truth.back(), std::fabs(truth.back()) * 1e-6 + 1e-12);
      }
      check_token(out, t, truth);
    }
  }
}

TEST(ReferenceFused, NaNNeverReachesAScale) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Matrix<float> x = [&] {
    Matrix<float> m(1, 4);
    m(0, 0) = nan;
    m(0, 1) = 7.0f;
    m(0, 2) = m(0, 3) = nan;
    return m;
  }();
  QuantizedActivations out;
  out.resize(1, {{4, 2, 2, OutlierType::int8}, 4, 1.0f});
  reorder_quantize({}, {x.view(), nullptr, &out});
  EXPECT_EQ(out.scales(0)[0], 1.0f);
  EXPECT_EQ(out.values(0)[0], -8);
  EXPECT_EQ(out.values(0)[1], 7);
  EXPECT_EQ(out.sums(0)[0], -1);
  EXPECT_EQ(out.scales(0)[1], 0.0f);
}

/// One token of which each group and the outliers have one channel; all numbers by hand.
TEST(ReferenceFused, IntegerScalesOfAnExample) {
  const float channels[] = {7 * 16, 7 * 3.4f, 0, -7 * 8.6f, 127 * 2.25f};
  QuantizedActivations out;
  out.resize(1, {{5, 1, 1, OutlierType::int8, true}, 4, 1.0f});
  reorder_quantize({}, {{channels, 1, 5, 5}, nullptr, &out});
  EXPECT_EQ(out.unit(0), 1.0f);
  const float multipliers[] = {16, 3, 1, 9, 3};
  const int values[] = {7, 7, 0, -7, 95};
  for (int64_t g = 0; g < 5; ++g) {
    EXPECT_EQ(out.scales(0)[g], multipliers[g]);
    EXPECT_EQ(out.values(0)[g < 4 ? g : out.outlier_offset()], values[g]);
    EXPECT_EQ(out.sums(0)[g], values[g]);
  }
}

double log_sum_exp(const std::vector<float>& x) {
  double out = 0;
  const MatrixView<const float> row{x.data(), 1, static_cast<int64_t>(x.size()),
                                    static_cast<int64_t>(x.size())};
  reference::log_sum_exp(DeviceContext{}, {row, {&out, 1}});
  return out;
}

TEST(LogSumExp, EqualsLongDouble) {
  Random random(1);
  for (const size_t size : {1, 2, 15, 16, 17, 100, 1024, 1025, 49152}) {
    for (const double spread : {0.0, 1.0, 20.0, 300.0}) {
      std::vector<float> logits(size);
      for (float& logit : logits) logit = static_cast<float>((random.uniform() - 0.5) * spread);
      long double largest = -INFINITY;
      for (const float logit : logits) largest = std::max(largest, static_cast<long double>(logit));
      long double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<long double>(logit) - largest);
      EXPECT_NEAR(log_sum_exp(logits), static_cast<double>(largest + std::log(sum)), 1e-6) << size;
    }
  }
}

TEST(LogSumExp, ExtremesAreNoAccident) {
  const float huge = std::numeric_limits<float>::max();
  EXPECT_EQ(log_sum_exp({huge, 0.0f}), static_cast<double>(huge));
  EXPECT_EQ(log_sum_exp({-INFINITY, 0.0f}), 0.0);
  EXPECT_NEAR(log_sum_exp(std::vector<float>(64, -2.0f)), -2.0 + std::log(64.0), 1e-6);
  EXPECT_TRUE(std::isnan(log_sum_exp({-INFINITY, -INFINITY})));
  EXPECT_TRUE(std::isnan(log_sum_exp({INFINITY, 0.0f})));
  EXPECT_TRUE(std::isnan(log_sum_exp({NAN, 0.0f})));
}

}  // namespace
}  // namespace atom::reference
