#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/integer_scales.h"

namespace atom::cuda {
namespace {

using namespace fused_test;

/// Random canonical weights on the host and on the device.
struct TestWeight {
  TestWeight(Random& random, int64_t n, const ChannelLayout& layout) {
    const bool bytes = layout.outlier_type != OutlierType::fp16,
               fp8 = layout.outlier_type == OutlierType::fp8;
    const auto half = [&] { return float_to_half(static_cast<float>(random.uniform())); };
    host.n = n;
    host.layout = layout;
    for (int64_t i = 0; i < n * host.row_bytes(); ++i)
      values.push_back(static_cast<uint8_t>(random.below(256)));
    if (layout.integer_scales) {
      add_integer_scales(random);
    } else {
      for (int64_t i = 0; i < n * layout.groups(); ++i) scales.push_back(half());
      for (int64_t i = 0; i < n && bytes; ++i) outlier_scales.push_back(half());
    }
    for (int64_t i = 0; i < n * layout.n_outlier && bytes; ++i) {
      // FP8: any code but the two of NaN, in which all bits below the sign are set.
      const int code = static_cast<int>(random.below(fp8 ? 127 : 255));
      outliers.push_back(
          static_cast<int8_t>(fp8 ? code - 128 * static_cast<int>(random.below(2)) : code - 127));
    }
    for (int64_t i = 0; i < n * layout.n_outlier && !bytes; ++i) outliers_fp16.push_back(half());
    host.values = values.data();
    host.scales = scales.data();
    host.outliers = outliers.data();
    host.outlier_scales = outlier_scales.data();
    host.outliers_fp16 = outliers_fp16.data();
  }
  /// Units of 6 bits from 2^-24 on, some of them times a common factor; a row of zeros now and then.
  void add_integer_scales(Random& random) {
    for (int64_t row = 0; row < host.n; ++row) {
      const bool zero = random.below(9) == 0;
      const int factor = random.below(4) == 0 ? 3 : 1;
      const auto exponent = static_cast<int>(random.below(20)) - 24;
      const float unit = std::ldexp(static_cast<float>(random.below(42) + 1), exponent);
      const auto multiple = [&](int most) {
        const auto multiplier = static_cast<int>(random.below(static_cast<uint64_t>(most / factor) + 1));
        return float_to_half(zero ? 0.0f : unit * static_cast<float>(multiplier * factor));
      };
      for (int64_t g = 0; g < host.layout.groups(); ++g) {
        scales.push_back(multiple(integer_scales::kMostOfGroup));
      }
      outlier_scales.push_back(multiple(integer_scales::kMostOfOutlierWeights));
    }
  }

  std::vector<uint8_t> values;
  std::vector<uint16_t> scales, outlier_scales, outliers_fp16;
  std::vector<int8_t> outliers;
  LowBitWeight host;
};

struct DeviceWeight {
  explicit DeviceWeight(const TestWeight& w)
      : values(w.values),
        scales(w.scales),
        outlier_scales(w.outlier_scales),
        outliers_fp16(w.outliers_fp16),
        outliers(w.outliers),
        view{w.host.n,        w.host.layout,         values.data(),       scales.data(),
             outliers.data(), outlier_scales.data(), outliers_fp16.data()} {}
  DeviceArray<uint8_t> values;
  DeviceArray<uint16_t> scales, outlier_scales, outliers_fp16;
  DeviceArray<int8_t> outliers;
  LowBitWeight view;
};

TEST(CudaPackWeight, PutsEveryValueInItsPlaceAndZerosElsewhere) {
  ATOM_NEEDS_GPU();
  Random random(9);
  const ChannelLayout layouts[] = {{576, 64}, {512, 0},   {4096, 128}, {1536, 200}, {128, 128},
                                   {129, 1},  {300, 100}, {1280, 192}, {130, 2}};
  for (ChannelLayout layout : layouts) {
    layout.integer_scales = true;
    for (const int64_t n : {1, 128, 200, 257}) {
      const TestWeight w(random, n, layout);
      DeviceWeight device_w(w);
      const WeightTiles tiles{n, layout.groups(), layout.n_outlier};
      DeviceArray<uint8_t> packed(static_cast<size_t>(tiles.bytes()));
      pack_weight({device_w.view, packed.data()}, nullptr);
      std::vector<uint8_t> expected(static_cast<size_t>(tiles.bytes()));
      const auto put_float = [&](int64_t array, int64_t row, float value) {
        std::memcpy(expected.data() + array + 4 * row, &value, 4);
      };
      for (int64_t row = 0; row < tiles.rows() && layout.n_outlier == 0; ++row) {
        put_float(tiles.outlier_multipliers_offset(), row, 1.0f);
      }
      for (int64_t row = 0; row < n; ++row) {
        const int in_tile = static_cast<int>(row % kTileRows);
        const uint16_t* scales = w.scales.data() + row * layout.groups();
        const uint16_t outlier_scale =
            layout.n_outlier > 0 ? w.outlier_scales[static_cast<size_t>(row)] : uint16_t{0};
        ASSERT_TRUE(integer_scales::are_integer(scales, layout.groups(), outlier_scale));
        const int64_t unit = integer_scales::unit_steps(scales, layout.groups(), outlier_scale);
        put_float(tiles.row_units_offset(), row, integer_scales::from_steps(unit));
        if (layout.n_outlier > 0) {
          put_float(tiles.outlier_multipliers_offset(), row,
                    static_cast<float>(integer_scales::multiplier_of(outlier_scale, unit)));
        }
        for (int64_t c = 0; c < layout.k_normal(); ++c) {
          const uint8_t q =
              w.values[static_cast<size_t>(row * w.host.row_bytes() + c / 2)] >> (c % 2 * 4) & 15;
          const ValuePlace place = WeightTiles::normal(in_tile, static_cast<int>(c % 128));
          uint8_t& byte =
              expected[static_cast<size_t>(tiles.unit_offset(row / kTileRows, c / 128) + place.byte)];
          byte = static_cast<uint8_t>(byte | (place.high_nibble ? q << 4 : q));
        }
        for (int64_t g = 0; g < layout.groups(); ++g) {
          const int64_t at = tiles.unit_offset(row / kTileRows, g) + WeightTiles::multiplier_offset(in_tile);
          expected[static_cast<size_t>(at)] =
              static_cast<uint8_t>(integer_scales::multiplier_of(scales[g], unit));
        }
        for (int64_t c = 0; c < layout.n_outlier; ++c) {
          const int64_t unit = layout.groups() + c / kOutlierUnitChannels;
          const ValuePlace place = WeightTiles::outlier(in_tile, static_cast<int>(c % kOutlierUnitChannels));
          expected[static_cast<size_t>(tiles.unit_offset(row / kTileRows, unit) + place.byte)] =
              static_cast<uint8_t>(w.outliers[static_cast<size_t>(row * layout.n_outlier + c)]);
        }
      }
      EXPECT_EQ(packed.read(), expected)
          << "n " << n << " k " << layout.k << " outliers " << layout.n_outlier;
    }
  }
}

TEST(CudaLinearLowBitGeneral, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(10);
  for (QuantizeCase c : quantize_cases()) {
    c.tokens = std::min<int64_t>(c.tokens, 19);
    const ChannelLayout& layout = c.spec.layout;
    if (layout.integer_scales && !integer_scales::fits(layout.k_normal(), layout.n_outlier)) continue;
    const int64_t n = 1 + static_cast<int64_t>(random.below(70));
    const TestWeight w(random, n, c.spec.layout);
    DeviceWeight device_w(w);
    Matrix<float> x = random_matrix(random, c.tokens, c.spec.layout.k, Kind::outliers);
    DeviceMatrix device_x(DType::f32, x, 0);
    DeviceActivations device_activations(c.tokens, c.spec, c.form);
    reorder_quantize({device_x.view(), nullptr, device_activations.output()}, nullptr);
    QuantizedActivations activations;
    activations.resize(c.tokens, c.spec);
    run_reference(ReorderQuantize{std::as_const(x).view(), nullptr, &activations});
    const PreparedWeight prepared = prepare(w.host, c.spec.bits, WeightLayout::canonical);
    for (const bool accumulate : {false, true}) {
      Matrix<float> y = random_matrix(random, c.tokens, n);
      DeviceArray<float> device_y(to_vector(y));
      linear_low_bit_general({device_activations.output(),
                              device_w.view,
                              {device_y.data(), DType::f32, c.tokens, n, n},
                              accumulate},
                             nullptr);
      run_reference(LinearLowBit{&activations, &prepared, y.view(), accumulate});
      EXPECT_TRUE(same_floats(device_y.read().data(), y.data(), c.tokens * n)) << name_of(c);
    }
  }
}

TEST(CudaEmbedding, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(11);
  for (const int64_t hidden : {1, 3, 8, 33, 576, 4096}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      Matrix<float> table = random_matrix(random, 50, hidden, Kind::non_finite);
      DeviceMatrix device_table(dtype, table, 0);
      std::vector<int32_t> tokens;
      for (int i = 0; i < 70; ++i) tokens.push_back(static_cast<int32_t>(random.below(50)));
      DeviceArray<int32_t> device_tokens(tokens);
      DeviceArray<float> out(static_cast<size_t>(70 * hidden));
      embedding({device_tokens.data(), device_table.view(), {out.data(), DType::f32, 70, hidden, hidden}},
                nullptr);
      Matrix<float> expected(70, hidden);
      run_reference(EmbeddingLookup{tokens, DType::f32, table.data(), expected.view()});
      EXPECT_TRUE(same_floats(out.read().data(), expected.data(), 70 * hidden));
    }
  }
}

TEST(CudaConvert, RoundsAsTheHostDoes) {
  ATOM_NEEDS_GPU();
  Random random(12);
  for (const size_t count : {1, 3, 4, 1000, 70000}) {
    std::vector<float> x(count);
    for (size_t i = 0; i < count; ++i) {
      x[i] = i % 3 == 0 ? std::bit_cast<float>(static_cast<uint32_t>(random.below(uint64_t{1} << 32)))
                        : sample(random, kKinds[i % std::size(kKinds)]);
    }
    for (const DType dtype : {DType::f16, DType::bf16}) {
      DeviceArray<float> device_x(x);
      DeviceArray<uint8_t> narrow(2 * count);
      DeviceArray<float> wide(count);
      convert({device_x.data(), DType::f32, narrow.data(), dtype, static_cast<int64_t>(count)}, nullptr);
      convert({narrow.data(), dtype, wide.data(), DType::f32, static_cast<int64_t>(count)}, nullptr);
      std::vector<float> expected = x;
      encode(dtype, expected);
      EXPECT_TRUE(
          same_floats(decode(dtype, narrow.read()).data(), expected.data(), static_cast<int64_t>(count)));
      EXPECT_TRUE(same_floats(wide.read().data(), expected.data(), static_cast<int64_t>(count)));
    }
  }
}

}  // namespace
}  // namespace atom::cuda
