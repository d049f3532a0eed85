#include "quant/gptq.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "kernels/cpu/quant/row_quantizer.h"
#include "kernels/integer_scales.h"
#include "quant/activation_sample.h"
#include "quant/hessian.h"
#include "quant/outliers.h"
#include "tensor/half.h"

namespace atom {
namespace {

constexpr int64_t kTokens = 512;

float normal(Random& random) {
  const double u = std::max(random.uniform(), 1e-12);
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * random.uniform()));
}

/// Activations with correlated channels, some of them large.
Matrix<float> activations(int64_t k, uint64_t seed) {
  Random random(seed);
  Matrix<float> mix(k, k);
  for (float& value : mix.span()) value = normal(random) / std::sqrt(static_cast<float>(k));
  Matrix<float> x(kTokens, k);
  for (int64_t t = 0; t < kTokens; ++t) {
    std::vector<float> source(static_cast<size_t>(k));
    for (float& value : source) value = normal(random);
    for (int64_t c = 0; c < k; ++c) {
      float sum = 0.5f * source[static_cast<size_t>(c)];
      for (int64_t j = 0; j < 8; ++j) sum += 4 * mix(c, j) * source[static_cast<size_t>(j)];
      x(t, c) = c % 37 == 5 ? 20 * sum : sum;
    }
  }
  return x;
}

Matrix<float> weights(int64_t n, int64_t k, uint64_t seed) {
  Random random(seed);
  Matrix<float> w(n, k);
  for (float& value : w.span()) value = 0.05f * normal(random);
  return w;
}

Matrix<float> dequantize(const LowBitStorage& storage) {
  const ChannelLayout& layout = storage.layout;
  Matrix<float> out(storage.n, layout.k);
  for (int64_t r = 0; r < storage.n; ++r) {
    for (int64_t c = 0; c < layout.k_normal(); ++c) {
      const uint8_t byte = storage.values[static_cast<size_t>(r * ((layout.k_normal() + 1) / 2) + c / 2)];
      const int nibble = c % 2 == 0 ? byte & 0xF : byte >> 4;
      const int q = nibble >= 8 ? nibble - 16 : nibble;
      out(r, c) = static_cast<float>(q) *
                  half_to_float(storage.scales[static_cast<size_t>(r * layout.groups() + c / layout.group)]);
    }
    for (int64_t c = 0; c < layout.n_outlier; ++c) {
      const auto at = static_cast<size_t>(r * layout.n_outlier + c);
      out(r, layout.k_normal() + c) = layout.outlier_type == OutlierType::fp16
                                          ? half_to_float(storage.outliers_fp16[at])
                                          : static_cast<float>(storage.outliers[at]) *
                                                half_to_float(storage.outlier_scales[static_cast<size_t>(r)]);
    }
  }
  return out;
}

/// |(W - W') X|^2 with the columns of X permuted.
double output_error(const Matrix<float>& x, const std::vector<int32_t>& order, const Matrix<float>& w,
                    const Matrix<float>& quantized) {
  double error = 0;
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t r = 0; r < w.rows(); ++r) {
      double sum = 0;
      for (int64_t c = 0; c < w.cols(); ++c) {
        sum += static_cast<double>(x(t, order[static_cast<size_t>(c)])) *
               static_cast<double>(w(r, c) - quantized(r, c));
      }
      error += sum * sum;
    }
  }
  return error;
}

Matrix<float> copy_of(const Matrix<float>& m) {
  Matrix<float> out(m.rows(), m.cols());
  std::copy(m.span().begin(), m.span().end(), out.span().begin());
  return out;
}

struct Case {
  ChannelLayout layout;
  int64_t block_size;
};

class GptqTest : public ::testing::TestWithParam<Case> {};

TEST_P(GptqTest, BeatsRoundingAndStoresWhatItSays) {
  const ChannelLayout layout = GetParam().layout;
  ThreadPool pool(2);
  const DeviceContext device{&pool, detect_cpu_isa()};
  const Matrix<float> x = activations(layout.k, 1);
  const Matrix<float> w = weights(70, layout.k, 2);
  Hessian hessian(device, layout.k, false);
  hessian.add(device, x.view().row_range(0, 200));
  hessian.add(device, x.view().row_range(200, kTokens));
  const auto order = outlier_permutation(hessian.diagonal(device), layout.n_outlier);
  const ScaleChooser chooser(0.9f);

  Matrix<float> carried = copy_of(w);
  const GptqFactor factor(device, hessian, order, 0.01f, "test");
  const LowBitStorage by_gptq = gptq(device, carried.view(), layout, factor, chooser, GetParam().block_size);
  const LowBitStorage rounded = round_to_nearest(device, w.view(), layout, chooser);

  const Matrix<float> stored = dequantize(by_gptq);
  for (int64_t r = 0; r < w.rows(); ++r) {
    for (int64_t c = 0; c < w.cols(); ++c) ASSERT_EQ(stored(r, c), carried(r, c)) << r << ' ' << c;
  }
  const double error = output_error(x, order, w, stored);
  const double baseline = output_error(x, order, w, dequantize(rounded));
  EXPECT_LT(error, 0.9 * baseline);
  EXPECT_GT(error, 0);

  for (int64_t r = 0; layout.integer_scales && r < w.rows(); ++r) {
    const uint16_t outlier =
        layout.n_outlier > 0 ? by_gptq.outlier_scales[static_cast<size_t>(r)] : uint16_t{0};
    ASSERT_TRUE(
        integer_scales::are_integer(by_gptq.scales.data() + r * layout.groups(), layout.groups(), outlier));
  }

  // One thread gives the same bits.
  const DeviceContext serial{nullptr, detect_cpu_isa()};
  Matrix<float> again = copy_of(w);
  const LowBitStorage single = gptq(serial, again.view(), layout, factor, chooser, GetParam().block_size);
  EXPECT_TRUE(std::equal(single.values.begin(), single.values.end(), by_gptq.values.begin()));
  EXPECT_TRUE(std::equal(single.scales.begin(), single.scales.end(), by_gptq.scales.begin()));
}

INSTANTIATE_TEST_SUITE_P(Layouts, GptqTest,
                         ::testing::Values(Case{{320, 64, 128, OutlierType::int8}, 128},
                                           Case{{320, 64, 128, OutlierType::int8}, 1},
                                           Case{{320, 64, 64, OutlierType::fp16}, 100},
                                           Case{{256, 0, 128, OutlierType::int8}, 4096},
                                           Case{{200, 8, 192, OutlierType::int8}, 128},
                                           Case{{320, 64, 128, OutlierType::int8, true}, 128},
                                           Case{{320, 64, 64, OutlierType::int8, true}, 1},
                                           Case{{200, 0, 128, OutlierType::int8, true}, 100}));

Matrix<float> upper_factor(const DeviceContext& device, const Matrix<float>& x,
                           const std::vector<int32_t>& order) {
  Matrix<float> gram(x.cols(), x.cols()), upper(x.cols(), x.cols());
  run(device, AddGram{x.view(), gram.view()});
  bool positive_definite = false;
  run(device, InverseFactor{gram.view(), order.data(), 10.0, upper.view(), &positive_definite});
  EXPECT_TRUE(positive_definite);
  return upper;
}

float largest_magnitude(const Matrix<float>& w, int64_t row, int64_t begin, int64_t end) {
  float largest = 0;
  for (int64_t c = begin; c < end; ++c) largest = std::max(largest, std::fabs(w(row, c)));
  return largest;
}

/// Of integer scales the first group's multiplier, whose weights nothing has changed yet, is the best of all
/// by GPTQ's own weighting of errors, or by the caller's where there is one.
TEST(Gptq, MultipliersHaveTheLeastLoss) {
  const ChannelLayout layout{160, 32, 64, OutlierType::int8, true};
  const DeviceContext device{nullptr, CpuIsa::reference};
  std::vector<int32_t> order(160);
  for (int32_t i = 0; i < 160; ++i) order[static_cast<size_t>(i)] = (i * 7 + 3) % 160;
  const Matrix<float> upper = upper_factor(device, activations(layout.k, 3), order);
  std::vector<double> own, given;
  for (int64_t c = 0; c < layout.k; ++c) {
    own.push_back(1 / std::pow(static_cast<double>(upper(c, c)), 2));
    given.push_back(c % 3 == 0 ? 1.0 : 0.01);
  }
  const Matrix<float> w = weights(100, layout.k, 4);
  for (const bool is_given : {false, true}) {
    const std::vector<double>& importance = is_given ? given : own;
    Matrix<float> carried = copy_of(w);
    LowBitStorage stored(w.rows(), layout);
    run(device, GptqWeight{carried.view(),
                           upper.view(),
                           {0.85f, is_given ? given.data() : nullptr},
                           128,
                           target_of(stored)});
    for (int64_t r = 0; r < w.rows(); ++r) {
      const auto row_scales = stored.scales.data() + r * layout.groups();
      const float normals = largest_magnitude(w, r, 0, layout.k_normal());
      const float outliers = largest_magnitude(w, r, layout.k_normal(), layout.k);
      const float unit =
          integer_scales::weight_unit(round_to_half(0.85f * normals / 7), round_to_half(outliers / 127));
      const auto loss = [&](float scale) {
        double sum = 0;
        for (int64_t c = 0; c < layout.group; ++c) {
          const float q = std::clamp(std::nearbyint(w(r, c) / scale), -8.0f, 7.0f);
          sum += importance[static_cast<size_t>(c)] * std::pow(static_cast<double>(w(r, c) - q * scale), 2);
        }
        return sum;
      };
      for (int m = 1; m <= 16; ++m) {
        const double other = loss(static_cast<float>(m) * unit);
        ASSERT_LE(loss(half_to_float(row_scales[0])), other * (1 + 1e-5)) << is_given << ' ' << r << ' ' << m;
      }
    }
  }
}

/// Multiples are searched with a fixed clip too, FP16 scales are not. (Outliers, none here, would be
/// coarser.)
TEST(Gptq, IntegerScalesOfAFixedClipLoseNothing) {
  const DeviceContext device{nullptr, detect_cpu_isa()};
  ChannelLayout layout{512, 0, 128, OutlierType::int8};
  const Matrix<float> x = activations(layout.k, 11);
  const Matrix<float> w = weights(70, layout.k, 12);
  Hessian hessian(device, layout.k, false);
  hessian.add(device, x.view());
  const auto order = outlier_permutation(hessian.diagonal(device), layout.n_outlier);
  const GptqFactor factor(device, hessian, order, 0.01f, "test");
  const auto error = [&](bool integer) {
    layout.integer_scales = integer;
    Matrix<float> carried = copy_of(w);
    gptq(device, carried.view(), layout, factor, ScaleChooser(0.85f), 128);
    return output_error(x, order, w, carried);
  };
  EXPECT_LT(error(true), error(false));
}

TEST(Gptq, BlockSizeChangesNothingButRounding) {
  const ChannelLayout layout{256, 0, 256, OutlierType::int8};
  const DeviceContext device{nullptr, CpuIsa::reference};
  const Matrix<float> x = activations(layout.k, 3);
  Hessian hessian(device, layout.k, false);
  hessian.add(device, x.view());
  const std::vector<int32_t> order = outlier_permutation(hessian.diagonal(device), 0);
  const GptqFactor factor(device, hessian, order, 0.01f, "test");
  const ScaleChooser chooser(1.0f);
  Matrix<float> a = weights(16, layout.k, 4), b = weights(16, layout.k, 4);
  const LowBitStorage one = gptq(device, a.view(), layout, factor, chooser, 1);
  const LowBitStorage all = gptq(device, b.view(), layout, factor, chooser, 256);
  int64_t different = 0;
  for (size_t i = 0; i < one.values.size(); ++i) different += one.values[i] != all.values[i];
  EXPECT_LT(different, static_cast<int64_t>(one.values.size()) / 50);
}

TEST(Gptq, DeadChannelsAndBadHessians) {
  const DeviceContext device{nullptr, CpuIsa::reference};
  const std::vector<int32_t> order = {2, 0, 3, 1};
  Matrix<float> x(1, 4);
  x(0, 0) = 2;
  Hessian dead(device, 4, false);
  dead.add(device, x.view());
  EXPECT_NO_THROW(GptqFactor(device, dead, order, 0.01f, "test"));
  x(0, 2) = std::numeric_limits<float>::quiet_NaN();
  Hessian bad(device, 4, false);
  bad.add(device, x.view());
  EXPECT_THROW(GptqFactor(device, bad, order, 0.01f, "layer 3"), Error);
}

/// U^T U = (P (H + shift) P^T)^-1.
TEST(Gptq, FactorIsTheOneOfTheInverse) {
  constexpr int64_t kSize = 60;
  const DeviceContext device{nullptr, CpuIsa::reference};
  const Matrix<float> x = activations(kSize, 6);
  Matrix<float> gram(kSize, kSize), upper(kSize, kSize);
  run(device, AddGram{x.view(), gram.view()});
  std::vector<int32_t> order(kSize);
  for (int32_t i = 0; i < kSize; ++i) order[static_cast<size_t>(i)] = (i * 7 + 3) % kSize;
  bool positive_definite = false;
  run(device, InverseFactor{gram.view(), order.data(), 50.0, upper.view(), &positive_definite});
  ASSERT_TRUE(positive_definite);
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t j = 0; j < kSize; ++j) {
      // Row i of U^T U times column j of H.
      double product = 0;
      for (int64_t l = 0; l < kSize; ++l) {
        double inverse = 0;
        for (int64_t m = 0; m <= std::min(i, l); ++m) {
          inverse += static_cast<double>(upper(m, i)) * static_cast<double>(upper(m, l));
        }
        const int64_t a = order[static_cast<size_t>(l)], b = order[static_cast<size_t>(j)];
        product +=
            inverse * (static_cast<double>(gram(std::min(a, b), std::max(a, b))) + (l == j ? 50.0 : 0.0));
      }
      EXPECT_NEAR(product, i == j ? 1.0 : 0.0, 1e-3) << i << ' ' << j;
    }
  }
}

TEST(Hessian, MatchesTheDefinitionForAnyNumberOfThreads) {
  const Matrix<float> x = activations(300, 5);
  ThreadPool pool(3);
  const DeviceContext parallel{&pool, CpuIsa::reference};
  const DeviceContext serial{nullptr, CpuIsa::reference};
  Hessian a(parallel, 300, false), b(serial, 300, false), squares(parallel, 300, true);
  a.add(parallel, x.view());
  b.add(serial, x.view());
  squares.add(parallel, x.view());
  const std::vector<double> diagonal = a.diagonal(parallel), sums = squares.diagonal(parallel);
  for (int64_t i = 0; i < 300; i += 13) {
    for (int64_t j = i; j < 300; j += 7) {
      double expected = 0;
      double scale = 0;
      for (int64_t t = 0; t < kTokens; ++t) {
        const double product = static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
        expected += product;
        scale += std::abs(product);
      }
      EXPECT_NEAR(a.upper()(i, j), expected, 1e-5 * scale);
      EXPECT_EQ(a.upper()(i, j), b.upper()(i, j));
    }
    EXPECT_NEAR(sums[static_cast<size_t>(i)], diagonal[static_cast<size_t>(i)],
                1e-5 * diagonal[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(a.tokens(), kTokens);
}

TEST(Outliers, LargestComeLastAndTiesGoByChannel) {
  const std::vector<double> squares = {5, 1, 9, 1, 7};
  EXPECT_EQ(outlier_permutation(squares, 2), (std::vector<int32_t>{0, 1, 3, 4, 2}));
  EXPECT_EQ(outlier_permutation(squares, 0), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(outlier_permutation(squares, 5), (std::vector<int32_t>{1, 3, 0, 4, 2}));
}

TEST(ScaleRule, SearchIsNeverWorseThanNoClip) {
  Random random(6);
  std::vector<float> group(128);
  for (float& value : group) value = normal(random);
  group[7] = 6.0f;  // one large value: clipping pays
  const std::vector<double> importance(128, 1.0);
  const auto error = [&](float scale) {
    double sum = 0;
    for (const float value : group) {
      const float q = std::clamp(std::nearbyint(value / scale), -8.0f, 7.0f);
      sum += std::pow(static_cast<double>(value - q * scale), 2);
    }
    return sum;
  };
  const float plain = cpu::normal_scale({1.0f, nullptr}, group, 0);
  const float searched = cpu::normal_scale({1.0f, importance.data()}, group, 0);
  EXPECT_FLOAT_EQ(plain, round_to_half(6.0f / 7.0f));
  EXPECT_LT(searched, plain);
  EXPECT_LT(error(searched), error(plain));
}

TEST(ActivationClip, ClipsWhereItPays) {
  const DeviceContext device{nullptr, detect_cpu_isa()};
  Random random(7);
  Matrix<float> x(256, 128);
  for (float& value : x.span()) value = normal(random);
  const Matrix<float> w = weights(32, 128, 8);
  std::vector<int32_t> order(128);
  for (int32_t i = 0; i < 128; ++i) order[static_cast<size_t>(i)] = 127 - i;
  ActivationSpec spec;
  spec.layout = {128, 0, 128, OutlierType::int8};
  const float clip = search_activation_clip(device, x.view(), w.view(), order.data(), spec);
  EXPECT_LT(clip, 1.0f);
  EXPECT_GE(clip, 0.5f);
  spec.bits = 8;
  EXPECT_GT(search_activation_clip(device, x.view(), w.view(), order.data(), spec), clip);

  ActivationSample sample(device, 100, 256, 128);
  sample.offer(device, x.view().row_range(0, 30));
  sample.offer(device, x.view().row_range(30, 31));
  sample.offer(device, x.view().row_range(31, 256));
  EXPECT_EQ(sample.rows().rows, 86);
  EXPECT_EQ(sample.rows()(11, 3), x(33, 3));
}

}  // namespace
}  // namespace atom
