#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/cuda.h"
#include "kernels/quant_ops.h"
#include "tensor/half.h"

// The ops of quantization on a GPU against the CPU's.

namespace atom {
namespace {

float normal(Random& random) {
  const double u = std::max(random.uniform(), 1e-12);
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * random.uniform()));
}

Matrix<float> random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  Matrix<float> out(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out(r, c) = (c % 37 == 5 ? 10.0f : 1.0f) * normal(random);
  }
  return out;
}

/// A low-bit weight in the memory of either device, poisoned where an op must write.
struct Target {
  ChannelLayout layout;
  int64_t n;
  Buffer<uint8_t> values;
  Buffer<uint16_t> scales;
  Buffer<int8_t> outliers;
  Buffer<uint16_t> outlier_scales, outliers_fp16;

  Target(int64_t rows, const ChannelLayout& l, Memory* memory) : layout(l), n(rows) {
    const auto u = [&](int64_t per_row) { return static_cast<size_t>(rows * per_row); };
    values = Buffer<uint8_t>(u((l.k_normal() + 1) / 2), memory);
    scales = Buffer<uint16_t>::copy_of(std::vector<uint16_t>(u(l.groups()), 0xDEAD), memory);
    outliers = Buffer<int8_t>::copy_of(std::vector<int8_t>(u(l.n_outlier), 0x5A), memory);
    outlier_scales = Buffer<uint16_t>::copy_of(std::vector<uint16_t>(u(1), 0xDEAD), memory);
    outliers_fp16 = Buffer<uint16_t>::copy_of(std::vector<uint16_t>(u(l.n_outlier), 0xDEAD), memory);
  }
  LowBitTarget view() {
    return {n,
            layout,
            values.data(),
            scales.data(),
            outliers.data(),
            outlier_scales.data(),
            outliers_fp16.data()};
  }
  /// Elements that differ from `other`'s, of all that the layout has.
  int64_t different(const Target& other) const {
    int64_t count = 0;
    const auto compare = [&](const auto& a, const auto& b) {
      const auto x = a.clone(), y = b.clone();
      for (size_t i = 0; i < x.size(); ++i) count += x[i] != y[i];
    };
    compare(values, other.values);
    compare(scales, other.scales);
    if (layout.outlier_type == OutlierType::fp16) {
      compare(outliers_fp16, other.outliers_fp16);
    } else {
      compare(outliers, other.outliers);
      if (layout.n_outlier > 0) compare(outlier_scales, other.outlier_scales);
    }
    return count;
  }
};

class CudaQuantTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!first_cuda_device()) GTEST_SKIP() << "no GPU that the kernels run on";
    handle_ = open_cuda(*first_cuda_device());
    gpu_.cuda = handle_.device.get();
    gpu_.memory = handle_.memory;
  }

  Matrix<float> to_gpu(const Matrix<float>& host) const {
    Matrix<float> out(host.rows(), host.cols(), gpu_.memory);
    gpu_.memory->upload(out.data(), host.data(), host.span().size_bytes());
    return out;
  }
  Matrix<float> to_host(const Matrix<float>& device) const {
    Matrix<float> out(device.rows(), device.cols());
    gpu_.memory->download(out.data(), device.data(), out.span().size_bytes());
    return out;
  }
  template <class T>
  Buffer<T> to_gpu(const std::vector<T>& values) const {
    return Buffer<T>::copy_of(values, gpu_.memory);
  }

  /// The factor of the inverse of random activations' second moments.
  Matrix<float> factor(int64_t k, uint64_t seed) const {
    const Matrix<float> x = random_matrix(2 * k, k, seed);
    Matrix<float> gram(k, k), upper(k, k);
    run(cpu_, AddGram{x.view(), gram.view()});
    bool positive = false;
    run(cpu_, InverseFactor{gram.view(), random_permutation(Random(seed), k).data(),
                            0.02 * static_cast<double>(k), upper.view(), &positive});
    EXPECT_TRUE(positive);
    return upper;
  }

  CudaHandle handle_;
  DeviceContext gpu_;
  DeviceContext cpu_;
};

TEST_F(CudaQuantTest, CopiesAndGathersExactly) {
  const Matrix<float> x = random_matrix(50, 33, 1);
  const Matrix<float> device_x = to_gpu(x);
  Matrix<float> copied(7, 33, gpu_.memory);
  run(gpu_, CopyRows{device_x.view(), 3, 6, copied.view()});
  const Matrix<float> rows = to_host(copied);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 0; c < 33; ++c) EXPECT_EQ(rows(r, c), x(3 + 6 * r, c));
  }
  const std::vector<int32_t> order = random_permutation(Random(2), 33);
  const auto device_order = to_gpu(order);
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    std::vector<uint16_t> halves;
    for (const float value : x.span()) {
      halves.push_back(type == DType::f16 ? float_to_half(value) : float_to_bfloat16(value));
    }
    const auto device_halves = to_gpu(halves);
    const void* host = type == DType::f32 ? static_cast<const void*>(x.data()) : halves.data();
    const void* device =
        type == DType::f32 ? static_cast<const void*>(device_x.data()) : device_halves.data();
    for (const bool reorder : {false, true}) {
      Matrix<float> expected(50, 33), found(50, 33, gpu_.memory);
      run(cpu_, GatherColumns{type, host, reorder ? order.data() : nullptr, expected.view()});
      run(gpu_, GatherColumns{type, device, reorder ? device_order.data() : nullptr, found.view()});
      const Matrix<float> result = to_host(found);
      EXPECT_EQ(std::memcmp(result.data(), expected.data(), expected.span().size_bytes()), 0);
    }
  }
}

TEST_F(CudaQuantTest, SecondMomentsAreTheCpusWithinRounding) {
  for (const int64_t k : {1, 64, 200, 576}) {
    const Matrix<float> x = random_matrix(700, k, static_cast<uint64_t>(k));
    const Matrix<float> device_x = to_gpu(x);
    Matrix<float> expected(k, k), found(k, k, gpu_.memory), again(k, k, gpu_.memory);
    Buffer<double> squares(static_cast<size_t>(k)), device_squares(static_cast<size_t>(k), gpu_.memory);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 300}, {300, 700}}) {
      run(cpu_, AddGram{x.view().row_range(begin, end), expected.view()});
      run(gpu_, AddGram{device_x.view().row_range(begin, end), found.view()});
      run(gpu_, AddGram{device_x.view().row_range(begin, end), again.view()});
      run(cpu_, AddSquares{x.view().row_range(begin, end), squares.data()});
      run(gpu_, AddSquares{device_x.view().row_range(begin, end), device_squares.data()});
    }
    const Matrix<float> result = to_host(found), second = to_host(again);
    const Buffer<double> sums = device_squares.clone();
    for (int64_t i = 0; i < k; ++i) {
      EXPECT_NEAR(sums[static_cast<size_t>(i)], squares[static_cast<size_t>(i)],
                  1e-12 * squares[static_cast<size_t>(i)]);
      for (int64_t j = i; j < k; ++j) {
        const double scale = std::sqrt(squares[static_cast<size_t>(i)] * squares[static_cast<size_t>(j)]);
        ASSERT_NEAR(result(i, j), expected(i, j), 1e-5 * scale) << i << ' ' << j;
        ASSERT_EQ(result(i, j), second(i, j));
      }
    }
  }
}

TEST_F(CudaQuantTest, InverseFactorIsTheCpus) {
  for (const int64_t k : {1, 3, 130, 576}) {
    const Matrix<float> x = random_matrix(k + 50, k, 9);
    Matrix<float> gram(k, k), expected(k, k);
    run(cpu_, AddGram{x.view(), gram.view()});
    gram(k / 2, k / 2) = 0;  // a channel that never fired
    for (int64_t i = 0; i < k; ++i) {
      if (i != k / 2) gram(std::min(i, k / 2), std::max(i, k / 2)) = 0;
    }
    const std::vector<int32_t> order = random_permutation(Random(4), k);
    const auto device_order = to_gpu(order);
    const Matrix<float> device_gram = to_gpu(gram);
    bool positive = false, device_positive = false;
    run(cpu_, InverseFactor{gram.view(), order.data(), 1.5, expected.view(), &positive});
    Matrix<float> poison(k, k);
    for (float& value : poison.span()) value = NAN;
    Matrix<float> found = to_gpu(poison);
    run(gpu_, InverseFactor{device_gram.view(), device_order.data(), 1.5, found.view(), &device_positive});
    ASSERT_TRUE(positive && device_positive);
    const Matrix<float> result = to_host(found);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        const float scale = i <= j ? std::sqrt(expected(i, i) * expected(j, j)) : 0.0f;
        ASSERT_NEAR(result(i, j), expected(i, j), 1e-5f * scale) << k << ": " << i << ' ' << j;
      }
    }
    run(gpu_, InverseFactor{device_gram.view(), device_order.data(), -1e9, found.view(), &device_positive});
    EXPECT_FALSE(device_positive);
  }
}

const ChannelLayout kLayouts[] = {
    {128, 0, 128, OutlierType::int8},         {576, 64, 128, OutlierType::int8},
    {320, 64, 64, OutlierType::fp16},         {200, 8, 192, OutlierType::int8},
    {257, 0, 257, OutlierType::int8},         {190, 25, 33, OutlierType::int8},
    {300, 300, 128, OutlierType::int8},       {576, 64, 128, OutlierType::int8, true},
    {257, 0, 257, OutlierType::int8, true},   {190, 25, 33, OutlierType::int8, true},
    {300, 300, 128, OutlierType::int8, true}, {120, 24, 40, OutlierType::int8, true},
};

TEST_F(CudaQuantTest, RoundsAsTheCpuDoes) {
  for (const ChannelLayout& layout : kLayouts) {
    const Matrix<float> weight = random_matrix(70, layout.k, 3);
    const Matrix<float> device_weight = to_gpu(weight);
    Target expected(70, layout, nullptr), found(70, layout, gpu_.memory);
    run(cpu_, RoundWeight{weight.view(), {0.85f, nullptr}, expected.view()});
    run(gpu_, RoundWeight{device_weight.view(), {0.85f, nullptr}, found.view()});
    EXPECT_EQ(found.different(expected), 0) << layout.k << ' ' << layout.group;

    std::vector<double> importance;
    Random random(5);
    for (int64_t i = 0; i < layout.k; ++i) importance.push_back(random.uniform() + 0.1);
    const auto device_importance = to_gpu(importance);
    run(cpu_, RoundWeight{weight.view(), {1, importance.data()}, expected.view()});
    run(gpu_, RoundWeight{device_weight.view(), {1, device_importance.data()}, found.view()});
    EXPECT_EQ(found.different(expected), 0) << layout.k << ' ' << layout.group;
  }
}

TEST_F(CudaQuantTest, GptqIsTheCpusUpToTheOrderOfSums) {
  for (const ChannelLayout& layout : kLayouts) {
    const Matrix<float> upper = factor(layout.k, 7);
    const Matrix<float> device_upper = to_gpu(upper);
    for (const int64_t block : {1, 100, 128, 4096}) {
      Matrix<float> weight = random_matrix(70, layout.k, 3);
      Matrix<float> device_weight = to_gpu(weight), device_again = to_gpu(weight);
      Target expected(70, layout, nullptr), found(70, layout, gpu_.memory), again(70, layout, gpu_.memory);
      run(cpu_, GptqWeight{weight.view(), upper.view(), {0.85f, nullptr}, block, expected.view()});
      run(gpu_, GptqWeight{device_weight.view(), device_upper.view(), {0.85f, nullptr}, block, found.view()});
      run(gpu_, GptqWeight{device_again.view(), device_upper.view(), {0.85f, nullptr}, block, again.view()});
      EXPECT_EQ(found.different(again), 0);
      // Within a block all operations are the CPU's; across blocks cuBLAS sums in another order.
      const bool one_block = layout.k <= std::min<int64_t>(block, 128);
      const int64_t different = found.different(expected);
      EXPECT_LE(different, one_block ? 0 : 70 * layout.k / 50) << layout.k << ' ' << block;

      // What is left in `weight` is what the stored values say.
      const Matrix<float> left = to_host(device_weight);
      const auto values = found.values.clone();
      const auto scales = found.scales.clone();
      for (int64_t r = 0; r < 70; ++r) {
        for (int64_t c = 0; c < layout.k_normal(); ++c) {
          const int byte = values[static_cast<size_t>(r * ((layout.k_normal() + 1) / 2) + c / 2)];
          const int nibble = (byte >> (c % 2 * 4)) & 0xF;
          const float scale =
              half_to_float(scales[static_cast<size_t>(r * layout.groups() + c / layout.group)]);
          ASSERT_EQ(left(r, c), static_cast<float>(nibble >= 8 ? nibble - 16 : nibble) * scale);
        }
      }
    }
  }
}

TEST_F(CudaQuantTest, GptqSearchesScalesAsTheCpuDoes) {
  for (const bool integer : {false, true}) {
    const ChannelLayout layout{320, 64, 128, OutlierType::int8, integer};
    const Matrix<float> upper = factor(layout.k, 7);
    const Matrix<float> device_upper = to_gpu(upper);
    std::vector<double> importance;
    Random random(5);
    for (int64_t i = 0; i < layout.k; ++i) importance.push_back(random.uniform() + 0.1);
    const auto device_importance = to_gpu(importance);
    Matrix<float> weight = random_matrix(70, layout.k, 3);
    Matrix<float> device_weight = to_gpu(weight);
    Target expected(70, layout, nullptr), found(70, layout, gpu_.memory);
    run(cpu_, GptqWeight{weight.view(), upper.view(), {1, importance.data()}, 128, expected.view()});
    run(gpu_,
        GptqWeight{
            device_weight.view(), device_upper.view(), {1, device_importance.data()}, 128, found.view()});
    EXPECT_LE(found.different(expected), 70 * layout.k / 50);
  }
}

TEST_F(CudaQuantTest, LossIsTheCpus) {
  for (const ChannelLayout& layout :
       {ChannelLayout{576, 64, 128, OutlierType::int8}, ChannelLayout{192, 32, 32, OutlierType::fp16},
        ChannelLayout{576, 64, 128, OutlierType::int8, true},
        ChannelLayout{200, 8, 96, OutlierType::int8, true}}) {
    ActivationSpec spec;
    spec.layout = layout;
    spec.clip = 0.9f;
    const Matrix<float> x = random_matrix(77, layout.k, 3), weight = random_matrix(130, layout.k, 4);
    const Matrix<float> device_x = to_gpu(x), device_weight = to_gpu(weight);
    const std::vector<int32_t> order = random_permutation(Random(4), layout.k);
    const auto device_order = to_gpu(order);
    QuantizedActivations quantized, device_quantized(gpu_.memory);
    quantized.resize(77, spec);
    device_quantized.resize(77, spec);
    const ReorderQuantize device_op{device_x.view(), device_order.data(), &device_quantized};
    if (cuda_implementations<ReorderQuantize>().empty()) GTEST_SKIP() << "no kernel to quantize with";
    run(cpu_, ReorderQuantize{x.view(), order.data(), &quantized});
    run(gpu_, device_op);
    double expected = 0, found = 0;
    run(cpu_, QuantizationLoss{x.view(), order.data(), &quantized, weight.view(), &expected});
    run(gpu_, QuantizationLoss{device_x.view(), device_order.data(), &device_quantized, device_weight.view(),
                               &found});
    EXPECT_GT(expected, 0);
    EXPECT_NEAR(found, expected, 1e-4 * expected);
  }
}

}  // namespace
}  // namespace atom
