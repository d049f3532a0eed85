#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/integer_scales.h"
#include "kernels/ops.h"
#include "tensor/half.h"

namespace atom {
namespace {

/// How the numbers of a case are drawn. `bound`: all of one magnitude, so that sums are as large as can be.
enum class Fill { random, extreme, zero_activations, bound };

/// A weight in the canonical layout and activations that fit it.
struct Case {
  ChannelLayout layout;
  std::vector<uint8_t> values;
  std::vector<uint16_t> scales;
  std::vector<int8_t> outliers;
  std::vector<uint16_t> outlier_scales;
  std::vector<uint16_t> outliers_fp16;
  LowBitWeight weight;
  QuantizedActivations x;
  /// With integer scales: those of the rows, [n, groups + 1] multipliers without a common divisor.
  std::vector<double> units;
  std::vector<int> multipliers;

  Case(uint64_t seed, int64_t m, int64_t n, const ChannelLayout& layout_, int bits, Fill fill = Fill::random);

  int weight_value(int64_t row, int64_t k) const {
    const int nibble = (values[static_cast<size_t>(row * weight.row_bytes() + k / 2)] >> (k % 2 * 4)) & 0xF;
    return nibble >= 8 ? nibble - 16 : nibble;
  }

  void draw_integer_scales(Random& random, Fill fill);
};

int draw(Random& random, Fill fill, int low, int high) {
  if (fill == Fill::bound) return low;
  if (fill == Fill::random) {
    return low + static_cast<int>(random.below(static_cast<uint64_t>(high - low + 1)));
  }
  return random.below(8) == 0 ? high : low;
}

uint16_t draw_scale(Random& random) {
  // Now and then a zero or a subnormal of fp16.
  const uint64_t kind = random.below(16);
  if (kind == 0) return 0;
  if (kind == 1) return 3;
  return float_to_half(static_cast<float>(0.001 + random.uniform()));
}

/// A multiplier up to `most`.
int draw_multiplier(Random& random, Fill fill, int least, int most) {
  return fill == Fill::bound || random.below(4) == 0 ? most : draw(random, Fill::random, least, most);
}

/// Units of 7 bits, whose multiples are values of fp16; now and then a subnormal or 0.
void Case::draw_integer_scales(Random& random, Fill fill) {
  const int64_t groups = layout.groups();
  for (int64_t row = 0; row < weight.n; ++row) {
    const uint64_t kind = random.below(12);
    double unit =
        std::ldexp(static_cast<double>(64 + random.below(64)), -20 + static_cast<int>(random.below(12)));
    if (kind == 0) unit = std::ldexp(static_cast<double>(1 + random.below(63)), -24);
    if (kind == 1) unit = 0;
    std::vector<int> drawn;
    for (int64_t g = 0; g < groups; ++g) drawn.push_back(draw_multiplier(random, fill, 0, 16));
    // A common divisor would make them smaller.
    if (fill == Fill::bound) drawn[0] = 15;
    drawn.push_back(layout.n_outlier == 0 ? 0 : draw_multiplier(random, fill, 0, 4));
    for (int64_t g = 0; g < groups; ++g) {
      const auto at = static_cast<size_t>(g);
      scales[static_cast<size_t>(row * groups + g)] = float_to_half(static_cast<float>(unit * drawn[at]));
    }
    if (layout.n_outlier > 0) {
      outlier_scales[static_cast<size_t>(row)] = float_to_half(static_cast<float>(unit * drawn.back()));
    }
    const int divisor = unit == 0 ? 0 : std::accumulate(drawn.begin(), drawn.end(), 0, std::gcd<int, int>);
    for (const int multiplier : drawn) multipliers.push_back(divisor == 0 ? 0 : multiplier / divisor);
    units.push_back(unit * divisor);
  }
  const int most = x.spec().bits == 4 ? 16 : 1;
  for (int64_t t = 0; t < x.tokens(); ++t) {
    x.units()[t] = x.scales(t)[0] == 0.0f ? 0.0f : static_cast<float>(random.uniform());
    for (int64_t g = 0; g <= groups; ++g) {
      x.scales(t)[g] = static_cast<float>(draw_multiplier(random, fill, 1, g < groups ? most : 64));
    }
  }
}

Case::Case(uint64_t seed, int64_t m, int64_t n, const ChannelLayout& layout_, int bits, Fill fill)
    : layout(layout_) {
  Random random(seed);
  // The bound of int32 is for what the quantizers give.
  const int lowest = layout.integer_scales ? -127 : -128;
  weight.n = n;
  weight.layout = layout;
  const int64_t k_normal = layout.k_normal();
  values.resize(static_cast<size_t>(n * weight.row_bytes()));
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t k = 0; k < k_normal; ++k) {
      const int nibble = draw(random, fill, -8, 7) & 0xF;
      values[static_cast<size_t>(row * weight.row_bytes() + k / 2)] |=
          static_cast<uint8_t>(nibble << (k % 2 * 4));
    }
  }
  scales.resize(static_cast<size_t>(n * layout.groups()));
  for (auto& s : scales) s = draw_scale(random);
  if (layout.outlier_type == OutlierType::int8) {
    outliers.resize(static_cast<size_t>(n * layout.n_outlier));
    for (auto& w : outliers) w = static_cast<int8_t>(draw(random, fill, lowest, 127));
    outlier_scales.resize(layout.n_outlier == 0 ? 0 : static_cast<size_t>(n));
    for (auto& s : outlier_scales) s = draw_scale(random);
  } else {
    outliers_fp16.resize(static_cast<size_t>(n * layout.n_outlier));
    for (auto& w : outliers_fp16) w = float_to_half(static_cast<float>(random.uniform() - 0.5));
  }
  weight.values = values.data();
  weight.scales = scales.data();
  weight.outliers = outliers.data();
  weight.outlier_scales = outlier_scales.data();
  weight.outliers_fp16 = outliers_fp16.data();

  x.resize(m, ActivationSpec{layout, bits, 1.0f});
  const int high = bits == 4 ? 7 : 127;
  for (int64_t t = 0; t < m; ++t) {
    const bool zero = fill == Fill::zero_activations || random.below(12) == 0;
    for (int64_t g = 0; g < x.scale_stride(); ++g) {
      x.scales(t)[g] = zero ? 0.0f : half_to_float(draw_scale(random));
      x.sums(t)[g] = 0;
    }
    for (int64_t k = 0; k < k_normal; ++k) {
      const int v = zero ? 0 : draw(random, fill, -high - 1, high);
      x.values(t)[k] = static_cast<int8_t>(v);
      x.sums(t)[k / layout.group] += v;
    }
    for (int64_t k = 0; k < layout.n_outlier; ++k) {
      const bool int8 = layout.outlier_type == OutlierType::int8;
      const int v = zero || !int8 ? 0 : draw(random, fill, lowest, 127);
      x.values(t)[x.outlier_offset() + k] = static_cast<int8_t>(v);
      x.sums(t)[layout.groups()] += v;
      if (!int8) {
        x.outliers_fp16(t)[k] = zero ? 0.0f : round_to_half(static_cast<float>(random.uniform() - 0.5));
      }
    }
  }
  if (layout.integer_scales) draw_integer_scales(random, fill);
}

ChannelLayout with_integer_scales(ChannelLayout layout) {
  layout.integer_scales = true;
  return layout;
}

/// The layout with fp16 scales, and with integer ones where it can have them.
std::vector<ChannelLayout> both_scales(const ChannelLayout& layout) {
  if (layout.outlier_type != OutlierType::int8) return {layout};
  return {layout, with_integer_scales(layout)};
}

const CpuIsa kLevels[] = {CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512vnni};

std::vector<float> run_on(const DeviceContext& device, const Case& c, const PreparedWeight& w,
                          const char* expected_name, bool accumulate = false) {
  const int64_t m = c.x.tokens();
  // A wider stride than n, so that a store beyond the last column is seen.
  const int64_t stride = w.n + 5;
  std::vector<float> y(static_cast<size_t>(m * stride));
  for (size_t i = 0; i < y.size(); ++i) y[i] = 0.25f * static_cast<float>(i % 7);
  const std::vector<float> before = y;
  const LinearLowBit op{&c.x, &w, {y.data(), m, w.n, stride}, accumulate};
  if (expected_name != nullptr) {
    EXPECT_STREQ(select(device, op).name, expected_name);
  }
  run(device, op);
  std::vector<float> out;
  for (int64_t t = 0; t < m; ++t) {
    const auto row = static_cast<size_t>(t * stride);
    for (size_t i = 0; i < static_cast<size_t>(w.n); ++i) out.push_back(y[row + i]);
    for (size_t i = static_cast<size_t>(w.n); i < static_cast<size_t>(stride); ++i) {
      EXPECT_EQ(y[row + i], before[row + i]) << "store beyond the last column";
    }
  }
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

int64_t dot(const Case& c, int64_t t, int64_t row, int64_t g) {
  const ChannelLayout& layout = c.layout;
  int64_t sum = 0;
  if (g == layout.groups()) {
    for (int64_t k = 0; k < layout.n_outlier; ++k) {
      sum += int64_t{c.x.values(t)[c.x.outlier_offset() + k]} *
             c.outliers[static_cast<size_t>(row * layout.n_outlier + k)];
    }
    return sum;
  }
  for (int64_t k = g * layout.group; k < std::min((g + 1) * layout.group, layout.k_normal()); ++k) {
    sum += int64_t{c.x.values(t)[k]} * c.weight_value(row, k);
  }
  return sum;
}

int64_t integer_sum(const Case& c, int64_t t, int64_t row) {
  const int64_t groups = c.layout.groups();
  int64_t sum = 0;
  for (int64_t g = 0; g <= groups; ++g) {
    const int multiplier = c.multipliers[static_cast<size_t>(row * (groups + 1) + g)];
    sum += dot(c, t, row, g) * multiplier * static_cast<int64_t>(c.x.scales(t)[g]);
  }
  return sum;
}

float expected_integer_output(const Case& c, int64_t t, int64_t row) {
  const int64_t sum = integer_sum(c, t, row);
  EXPECT_EQ(sum, static_cast<int32_t>(sum));
  const auto unit = static_cast<float>(c.units[static_cast<size_t>(row)]);
  return static_cast<float>(sum) * (c.x.units()[t] * unit);
}

/// The contract, computed independently: integers in int64, one product of scales, fma.
float expected_half_output(const Case& c, int64_t t, int64_t row) {
  const ChannelLayout& layout = c.layout;
  float acc = 0.0f;
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const float w_scale = half_to_float(c.scales[static_cast<size_t>(row * layout.groups() + g)]);
    acc = std::fma(static_cast<float>(dot(c, t, row, g)), c.x.scales(t)[g] * w_scale, acc);
  }
  if (layout.n_outlier > 0 && layout.outlier_type == OutlierType::int8) {
    const float w_scale = half_to_float(c.outlier_scales[static_cast<size_t>(row)]);
    acc = std::fma(static_cast<float>(dot(c, t, row, layout.groups())),
                   c.x.scales(t)[layout.groups()] * w_scale, acc);
  }
  if (layout.outlier_type == OutlierType::fp16) {
    for (int64_t k = 0; k < layout.n_outlier; ++k) {
      const float w = half_to_float(c.outliers_fp16[static_cast<size_t>(row * layout.n_outlier + k)]);
      acc = std::fma(c.x.outliers_fp16(t)[k], w, acc);
    }
  }
  return acc;
}

std::vector<float> expected_output(const Case& c, bool accumulate) {
  std::vector<float> out;
  for (int64_t t = 0; t < c.x.tokens(); ++t) {
    for (int64_t row = 0; row < c.weight.n; ++row) {
      float y =
          c.layout.integer_scales ? expected_integer_output(c, t, row) : expected_half_output(c, t, row);
      if (accumulate) {
        const auto at = static_cast<size_t>(t * (c.weight.n + 5) + row);
        y = 0.25f * static_cast<float>(at % 7) + y;
      }
      out.push_back(y);
    }
  }
  return out;
}

/// Reference against the independent computation, then every level against the reference, with the weights
/// in the canonical and in its own layout, on one thread and on three.
void check(const Case& c, int bits, bool accumulate = false) {
  const auto canonical = prepare(c.weight, bits, WeightLayout::canonical);
  const auto expected = run_on({nullptr, CpuIsa::reference}, c, canonical, "reference", accumulate);
  ASSERT_TRUE(same_bits(expected, expected_output(c, accumulate)));
  for (const float v : expected) ASSERT_FALSE(std::isnan(v));
  static ThreadPool pool(3);
  for (const CpuIsa isa : kLevels) {
    if (isa > detect_cpu_isa()) continue;
    const DeviceContext device{nullptr, isa};
    const auto prepared = prepare(device, c.weight, bits);
    ASSERT_EQ(prepared.weight_layout, choose_layout(device, c.weight.n, c.layout, bits));
    const char* name = prepared.weight_layout == WeightLayout::canonical ? "reference" : name_of(isa);
    EXPECT_TRUE(same_bits(run_on(device, c, prepared, name, accumulate), expected)) << name_of(isa);
    EXPECT_TRUE(same_bits(run_on({&pool, isa}, c, prepared, name, accumulate), expected))
        << name_of(isa) << " on three threads";
    EXPECT_TRUE(
        same_bits(run_on({nullptr, CpuIsa::reference}, c, prepared, "reference", accumulate), expected))
        << "reference on the layout of " << name_of(isa);
  }
}

std::string describe(int64_t m, int64_t n, const ChannelLayout& layout, int bits) {
  return "m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(layout.k) +
         " outliers " + std::to_string(layout.n_outlier) + " group " + std::to_string(layout.group) +
         (layout.outlier_type == OutlierType::int8 ? " int8" : " fp16") + " bits " + std::to_string(bits) +
         (layout.integer_scales ? " integer scales" : "");
}

TEST(LinearLowBit, LevelsThatThisProcessorHas) {
  std::string levels = "reference";
  for (const CpuIsa isa : kLevels) {
    if (isa <= detect_cpu_isa()) levels += std::string(" ") + name_of(isa);
  }
  std::printf("compared: %s\n", levels.c_str());
  EXPECT_EQ(choose_layout({nullptr, CpuIsa::reference}, 8, {128, 0, 128, OutlierType::int8}, 4),
            WeightLayout::canonical);
}

TEST(LinearLowBit, EveryBatchSizeOfTheModelsShapes) {
  for (int64_t m = 1; m <= 70; ++m) {
    for (const auto& layout : both_scales({m % 2 == 0 ? 576 : 320, 64, 128, OutlierType::int8})) {
      const int bits = m % 3 == 0 ? 8 : 4;
      SCOPED_TRACE(describe(m, 70, layout, bits));
      check(Case(static_cast<uint64_t>(m), m, 70, layout, bits), bits);
    }
  }
}

TEST(LinearLowBit, EdgesOfEveryDimension) {
  uint64_t seed = 100;
  for (const int bits : {4, 8}) {
    for (const OutlierType type : {OutlierType::int8, OutlierType::fp16}) {
      for (const int64_t n : {1, 7, 8, 9, 16, 17, 31, 33, 49, 65}) {
        for (const auto& [k, outliers, group] : std::vector<std::array<int64_t, 3>>{{1, 0, 128},
                                                                                    {1, 1, 128},
                                                                                    {5, 0, 4},
                                                                                    {64, 64, 128},
                                                                                    {130, 2, 128},
                                                                                    {131, 1, 128},
                                                                                    {131, 1, 64},
                                                                                    {200, 72, 128},
                                                                                    {129, 0, 12},
                                                                                    {256, 0, 256},
                                                                                    {1100, 3, 1097},
                                                                                    {1111, 100, 1011},
                                                                                    {1037, 13, 512},
                                                                                    {2600, 5, 2595},
                                                                                    {37, 3, 6}}) {
          for (const auto& layout : both_scales({k, outliers, group, type})) {
            const int64_t m = 1 + static_cast<int64_t>(seed % 14);
            SCOPED_TRACE(describe(m, n, layout, bits));
            check(Case(seed, m, n, layout, bits), bits, seed / 2 % 2 == 0);
            ++seed;
          }
        }
      }
    }
  }
}

TEST(LinearLowBit, ExtremeValuesDoNotSaturate) {
  for (const int bits : {4, 8}) {
    // 508 and 512: sums of groups within 16 bits and beyond.
    for (const int64_t group : {128, 508, 512, 1024, 4096}) {
      for (const auto& layout : both_scales({4096 + 496, 496, group, OutlierType::int8})) {
        for (uint64_t seed = 0; seed < 3; ++seed) {
          SCOPED_TRACE(describe(13, 33, layout, bits));
          check(Case(seed, 13, 33, layout, bits, Fill::extreme), bits);
        }
      }
    }
  }
}

/// The largest sums that int32 has to hold: all channels at their lowest, all multipliers at their largest.
TEST(LinearLowBit, IntegerSumsReachTheBound) {
  for (const int bits : {4, 8}) {
    for (const auto& [k_normal, group] : std::vector<std::array<int64_t, 2>>{
             {128, 128}, {511, 511}, {512, 512}, {4096, 128}, {28672, 28672}, {131071, 128}}) {
      int64_t n_outlier = 0;
      while (integer_scales::fits(k_normal, n_outlier + 1)) ++n_outlier;
      const ChannelLayout layout{k_normal + n_outlier, n_outlier, group};
      SCOPED_TRACE(describe(3, 17, layout, bits));
      Case c(5, 3, 17, with_integer_scales(layout), bits, Fill::bound);
      // Every other row near the lowest sum.
      for (int64_t i = 0; i < 17 * n_outlier; ++i) {
        c.outliers[static_cast<size_t>(i)] = i / n_outlier % 2 == 0 ? -127 : 127;
      }
      int64_t largest = 0;
      for (int64_t row = 0; row < 17; ++row) largest = std::max(largest, integer_sum(c, 0, row));
      EXPECT_GT(largest, INT32_MAX - (int64_t{1} << 25));
      check(c, bits);
    }
  }
}

TEST(LinearLowBit, AllZeroTokensGiveZero) {
  for (const auto& layout : both_scales({576, 64, 128, OutlierType::int8})) {
    const Case c(7, 9, 40, layout, 4, Fill::zero_activations);
    check(c, 4);
    const auto canonical = prepare(c.weight, 4, WeightLayout::canonical);
    for (const float v : run_on({nullptr, CpuIsa::reference}, c, canonical, nullptr)) EXPECT_EQ(v, 0.0f);
  }
}

TEST(LinearLowBit, RandomShapes) {
  Random random(2024);
  for (int i = 0; i < 300; ++i) {
    const auto type = random.below(4) == 0 ? OutlierType::fp16 : OutlierType::int8;
    const auto k = static_cast<int64_t>(1 + random.below(700));
    const auto outliers =
        static_cast<int64_t>(random.below(3) == 0 ? 0 : random.below(static_cast<uint64_t>(k) + 1));
    const int64_t group = random.below(8) == 0 ? k : static_cast<int64_t>(4 * (1 + random.below(40)));
    ChannelLayout layout{k, outliers, group, type};
    layout.integer_scales = type == OutlierType::int8 && random.below(2) == 0;
    const auto m = static_cast<int64_t>(1 + random.below(40));
    const auto n = static_cast<int64_t>(1 + random.below(100));
    const int bits = random.below(2) == 0 ? 4 : 8;
    SCOPED_TRACE(describe(m, n, layout, bits));
    check(Case(random.next(), m, n, layout, bits), bits, random.below(2) == 0);
  }
}

TEST(LinearLowBit, ATokenDoesNotDependOnItsBatch) {
  const int64_t m = 61;
  const int64_t n = 100;
  for (const auto& layout : both_scales({576, 64, 128, OutlierType::int8})) {
    const Case c(5, m, n, layout, 4);
    for (const CpuIsa isa : kLevels) {
      if (isa > detect_cpu_isa()) continue;
      const DeviceContext device{nullptr, isa};
      const auto w = prepare(device, c.weight, 4);
      const auto whole = run_on(device, c, w, name_of(isa));
      for (int64_t t = 0; t < m; ++t) {
        Case alone(5, 1, n, layout, 4);
        std::copy_n(c.x.values(t), c.x.stride(), alone.x.values(0));
        std::copy_n(c.x.scales(t), c.x.scale_stride(), alone.x.scales(0));
        std::copy_n(c.x.sums(t), c.x.scale_stride(), alone.x.sums(0));
        if (layout.integer_scales) alone.x.units()[0] = c.x.unit(t);
        const auto row = run_on(device, alone, w, name_of(isa));
        EXPECT_EQ(0, std::memcmp(row.data(), whole.data() + t * n, static_cast<size_t>(n) * sizeof(float)));
      }
    }
  }
}

TEST(LinearLowBit, NoTokens) {
  for (const auto& layout : both_scales({128, 0, 128, OutlierType::int8}))
    check(Case(5, 0, 16, layout, 4), 4);
}

TEST(Prepare, RefusesGroupsThatCannotBeRepacked) {
  const ChannelLayout layout{36, 0, 6, OutlierType::int8};
  const Case c(5, 1, 16, layout, 4);
  EXPECT_THROW(prepare(c.weight, 4, WeightLayout::rows8_avx2), Error);
  EXPECT_EQ(choose_layout({nullptr, CpuIsa::avx512vnni}, 16, layout, 4), WeightLayout::canonical);
}

}  // namespace
}  // namespace atom
