#include "quant/rounding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/integer_scales.h"
#include "tensor/half.h"

// RoundWeight with integer scales against a search by hand.
namespace atom {
namespace {

struct Case {
  ChannelLayout layout;
  float magnitude;
};

float normal(Random& random) {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return static_cast<float>(sum - 6);
}

/// Rows whose groups differ in magnitude; some groups, some rows and some rows' outliers are zero.
Matrix<float> weights(int64_t n, const Case& c, Random& random) {
  Matrix<float> w(n, c.layout.k);
  for (int64_t r = 0; r < n; ++r) {
    float factor = 0;
    const float of_row = r % 7 == 3 ? 0.0f : c.magnitude;
    for (int64_t k = 0; k < c.layout.k; ++k) {
      const bool head = k < c.layout.k_normal() ? k % c.layout.group == 0 : k == c.layout.k_normal();
      if (head) factor = random.below(9) == 0 ? 0.0f : static_cast<float>(std::exp2(-4.0 * random.uniform()));
      w(r, k) = of_row * factor * normal(random);
    }
  }
  return w;
}

double half_scale(double magnitude) {
  return round_to_half(static_cast<float>(std::min(magnitude, 65504.0)));
}

/// The least number of 7 bits, or multiple of 2^-24, that is not below `least`.
double smallest_unit(double least) {
  if (least <= 127 * 0x1p-24) return std::ceil(least * 0x1p24) * 0x1p-24;
  double best = std::numeric_limits<double>::infinity();
  for (int exponent = -24; exponent < 20; ++exponent) {
    for (int mantissa = 64; mantissa < 128; ++mantissa) {
      const double candidate = std::ldexp(mantissa, exponent);
      if (candidate >= least) best = std::min(best, candidate);
    }
  }
  return best;
}

/// Null `importance`: all alike.
double error_of(const float* weights, const double* importance, int64_t count, double scale) {
  double error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double q =
        scale == 0 ? 0.0 : std::clamp(std::nearbyint(static_cast<double>(weights[i]) / scale), -8.0, 7.0);
    error += (importance == nullptr ? 1.0 : importance[i]) *
             std::pow(static_cast<double>(weights[i]) - q * scale, 2);
  }
  return error;
}

float largest_magnitude(const float* begin, const float* end) {
  float largest = 0;
  for (const float* x = begin; x < end; ++x) largest = std::max(largest, std::fabs(*x));
  return largest;
}

int value_of(const LowBitStorage& storage, int64_t row, int64_t k) {
  const int64_t row_bytes = (storage.layout.k_normal() + 1) / 2;
  const int nibble = storage.values[static_cast<size_t>(row * row_bytes + k / 2)] >> (k % 2 * 4) & 0xF;
  return nibble >= 8 ? nibble - 16 : nibble;
}

/// Every scale and value of a row.
void check_row(const LowBitStorage& stored, int64_t row, const float* w, float clip,
               const double* importance) {
  const ChannelLayout& layout = stored.layout;
  const int64_t normal = layout.k_normal();
  std::vector<double> wanted;
  const auto end_of = [&](int64_t g) { return std::min((g + 1) * layout.group, normal); };
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const float largest = largest_magnitude(w + g * layout.group, w + end_of(g));
    wanted.push_back(half_scale(static_cast<double>(clip * largest) / 7));
  }
  const double outlier = half_scale(static_cast<double>(largest_magnitude(w + normal, w + layout.k)) / 127);
  const double unit =
      smallest_unit(std::max(*std::max_element(wanted.begin(), wanted.end()) / 16, outlier / 4));
  const double most = unit == 0 ? 16 : std::min(16.0, std::floor(65504 / unit));

  const uint16_t* scales = stored.scales.data() + row * layout.groups();
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const double scale = half_to_float(scales[g]);
    const double multiplier = unit == 0 ? 1 : scale / unit;
    ASSERT_EQ(multiplier, std::nearbyint(multiplier)) << "group " << g;
    ASSERT_TRUE(multiplier >= 1 && multiplier <= most) << multiplier;
    const float* group = w + g * layout.group;
    const int64_t count = end_of(g) - g * layout.group;
    const double* weight = importance == nullptr ? nullptr : importance + g * layout.group;
    const double error = error_of(group, weight, count, scale);
    for (int m = 1; m <= static_cast<int>(most); ++m) {
      const double other = error_of(group, weight, count, m * unit);
      ASSERT_LE(error, other * (1 + 1e-5)) << "group " << g << ", multiplier " << m;
      // Equal errors: the first.
      if (other == 0) {
        ASSERT_LE(multiplier, m);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const double q = value_of(stored, row, g * layout.group + i);
      const double bounded = std::clamp(static_cast<double>(group[i]), -8.5 * scale, 7.5 * scale);
      ASSERT_LE(std::fabs(q * scale - bounded), 0.50001 * scale);
    }
  }
  if (layout.n_outlier > 0) {
    const double scale = half_to_float(stored.outlier_scales[static_cast<size_t>(row)]);
    const double multiplier = unit == 0 ? 1 : scale / unit;
    ASSERT_EQ(multiplier, std::nearbyint(multiplier));
    ASSERT_TRUE(multiplier >= 1 && multiplier <= std::min(most, 4.0)) << multiplier;
    ASSERT_TRUE(scale >= outlier || multiplier == std::min(most, 4.0)) << "outliers are not clipped";
    ASSERT_TRUE(multiplier == 1 || scale - unit <= outlier);
    for (int64_t i = 0; i < layout.n_outlier; ++i) {
      const double q = stored.outliers[static_cast<size_t>(row * layout.n_outlier + i)];
      const double bounded = std::clamp(static_cast<double>(w[normal + i]), -127.5 * scale, 127.5 * scale);
      ASSERT_LE(std::fabs(q * scale - bounded), 0.50001 * scale);
    }
  }
  ASSERT_TRUE(integer_scales::are_integer(
      scales, layout.groups(),
      layout.n_outlier > 0 ? stored.outlier_scales[static_cast<size_t>(row)] : uint16_t{0}));
}

const Case kCases[] = {
    {{320, 64, 128, OutlierType::int8, true}, 0.05f},  {{576, 0, 128, OutlierType::int8, true}, 0.05f},
    {{200, 8, 128, OutlierType::int8, true}, 0.05f},   {{97, 3, 10, OutlierType::int8, true}, 1.0f},
    {{256, 100, 256, OutlierType::int8, true}, 3e-7f}, {{320, 64, 64, OutlierType::int8, true}, 1e-5f},
    {{320, 64, 128, OutlierType::int8, true}, 1e5f},   {{320, 64, 128, OutlierType::int8, true}, 1e7f},
};

TEST(RoundWeight, IntegerScalesAreWhatASearchByHandFinds) {
  const DeviceContext device{nullptr, detect_cpu_isa()};
  Random random(1);
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.magnitude);
    const Matrix<float> w = weights(40, c, random);
    std::vector<double> importance(static_cast<size_t>(c.layout.k));
    for (double& value : importance) value = 0.1 + random.uniform();
    const LowBitStorage fixed = round_to_nearest(device, w.view(), c.layout, ScaleChooser(0.9f));
    LowBitStorage weighted(w.rows(), c.layout);
    run(device, RoundWeight{w.view(), {0.7f, importance.data()}, target_of(weighted)});
    for (int64_t row = 0; row < w.rows(); ++row) {
      SCOPED_TRACE(row);
      check_row(fixed, row, w.row(row), 0.9f, nullptr);
      check_row(weighted, row, w.row(row), 0.7f, importance.data());
      if (HasFatalFailure()) return;
    }
  }
}

/// The price of integer scales, where groups are of like magnitude: little.
TEST(RoundWeight, IntegerScalesLoseLittle) {
  const DeviceContext device{nullptr, detect_cpu_isa()};
  Random random(2);
  ChannelLayout layout{4096 + 128, 128, 128};
  Matrix<float> w(16, layout.k);
  for (float& value : w.span()) value = 0.02f * normal(random);
  const std::vector<double> importance(static_cast<size_t>(layout.k), 1.0);
  const auto error = [&](bool integer) {
    layout.integer_scales = integer;
    const LowBitStorage stored = round_to_nearest(device, w.view(), layout, ScaleChooser(device, importance));
    double sum = 0;
    for (int64_t row = 0; row < w.rows(); ++row) {
      for (int64_t g = 0; g < layout.groups(); ++g) {
        const double scale = half_to_float(stored.scales[static_cast<size_t>(row * layout.groups() + g)]);
        sum += error_of(w.row(row) + g * 128, importance.data(), 128, scale);
      }
    }
    return sum;
  };
  const double by_halves = error(false);
  EXPECT_LT(error(true), 1.03 * by_halves);
  EXPECT_GT(error(true), 0.98 * by_halves);
}

}  // namespace
}  // namespace atom
