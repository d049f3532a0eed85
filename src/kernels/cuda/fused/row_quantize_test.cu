#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/cuda/fused/row_quantize.cuh"

namespace atom::cuda {
namespace {

using namespace fused_test;

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

TEST(SingleConfig, CoversEveryUnitAndFitsABlock) {
  for (const int64_t k : {4, 128, 576, 4096, 5120, 8192, 16384}) {
    for (const int64_t n_outlier : {0, 64, 128}) {
      for (const int64_t tokens : {1, 132, 133, 16384}) {
        const ChannelLayout layout{k, n_outlier};
        if (n_outlier > k || !fused::is_fast_row(layout)) continue;
        const auto config = fused::single_config(layout, tokens, 132);
        EXPECT_GE(config.units_per_warp * config.warps, fused::row_units(layout));
        EXPECT_LE(32 * (config.warps + 1), fused::max_single_threads(config.units_per_warp));
        EXPECT_LE(config.units_per_warp, 8);
      }
    }
  }
}

TEST(StreamConfig, FitsAMultiprocessor) {
  for (const int64_t k : {4, 128, 576, 4096, 5120, 8192, 14336}) {
    for (const int element : {2, 4}) {
      const ChannelLayout layout{k, k > 128 ? 128 : 0};
      const auto config = fused::stream_config(layout, element);
      ASSERT_GE(config.blocks, 1) << k;
      EXPECT_GE(config.slots, 2);
      EXPECT_LE(config.slots, fused::kMaxSlots);
      EXPECT_GE(config.warps * fused::kStreamUnits, fused::row_units(layout));
      EXPECT_LE(config.blocks * 32 * (config.warps + 2), fused::max_stream_threads(config.slot_tokens));
      EXPECT_LE(config.blocks * (config.slots * config.slot_bytes() + 2048), 228 * 1024);
      EXPECT_GE(config.pitch, k * element);
      // The second token's chains read the other 16 banks.
      EXPECT_EQ(config.pitch % 128, 64);
    }
  }
  EXPECT_EQ(fused::stream_config({4096, 128}, 4).blocks, 2);
  EXPECT_EQ(fused::stream_config({16384, 128}, 2).blocks, 0);
}

/// How many comparisons there were, and how many found a difference.
struct Comparisons {
  unsigned long long all, different;
};
__device__ void compare(float a, float b, Comparisons& of_thread) {
  ++of_thread.all;
  of_thread.different += __float_as_uint(a) != __float_as_uint(b);
}
__device__ void add_to(Comparisons* sum, const Comparisons& of_thread) {
  atomicAdd(&sum->all, of_thread.all);
  atomicAdd(&sum->different, of_thread.different);
}

/// Scales of all magnitudes, infinity included, and the contract's.
__global__ void compare_scales(const fused::RowQuantize a, Comparisons* sum) {
  Comparisons mine{};
  for (uint32_t bits = blockIdx.x * blockDim.x + threadIdx.x; bits <= 0x7F800000u;
       bits += gridDim.x * blockDim.x) {
    const float x = __uint_as_float(bits);
    for (const bool normal : {false, true}) {
      compare(fused::scale_of(a, normal, x),
              numerics::symmetric_scale(x, normal ? a.clip : 1.0f, normal ? a.high : 127.0f), mine);
    }
  }
  add_to(sum, mine);
}

/// Reciprocals of all units that scales of fp16 ask for, and of their multiples.
__global__ void compare_inverses(Comparisons* sum) {
  Comparisons mine{};
  for (uint32_t half = threadIdx.x; half < 0x7C00u; half += blockDim.x) {
    const float scale = fused::widen(fused::Half{static_cast<uint16_t>(half)});
    for (const float share : {1.0f, 1.0f / 16, 1.0f / 64}) {
      const float x = scale * share * static_cast<float>(blockIdx.x);
      compare(fused::inverse_of(x), numerics::inverse_scale(x), mine);
    }
  }
  add_to(sum, mine);
}

TEST(CudaRowQuantize, ScalesAndReciprocalsAreTheContractsToTheBit) {
  ATOM_NEEDS_GPU();
  for (const int bits : {4, 8}) {
    for (const float clip : {1.0f, 0.9f, 0.615f}) {
      DeviceArray<Comparisons> sum(std::vector<Comparisons>{{0, 0}});
      const QuantizedOutput out{{{4096, 128}, bits, clip}};
      launch(compare_scales, 1024, 256, 0, nullptr, {.dependent = false},
             fused::RowQuantize({}, nullptr, 0.0f, nullptr, out), sum.data());
      const Comparisons found = sum.read()[0];
      EXPECT_EQ(found.all, 2 * 0x7F800001ull);
      EXPECT_EQ(found.different, 0) << bits << " bits, clip " << clip;
    }
  }
  DeviceArray<Comparisons> sum(std::vector<Comparisons>{{0, 0}});
  launch(compare_inverses, 65, 1024, 0, nullptr, {.dependent = false}, sum.data());
  const Comparisons found = sum.read()[0];
  EXPECT_EQ(found.all, 65 * 3 * 0x7C00ull);
  EXPECT_EQ(found.different, 0);
}

TEST(CudaRmsNorm, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(1);
  std::vector<int64_t> sizes = {64, 576, 1000, 4096, 8192};
  for (int64_t k = 1; k <= 33; ++k) sizes.push_back(k);
  for (const int64_t k : sizes) {
    const int64_t tokens = k == 576 ? 300 : 3;
    for (const DType in : kTypes) {
      for (const DType to : kTypes) {
        if (in != DType::f32 && in != to) continue;
        const Kind kind = kKinds[random.below(std::size(kKinds))];
        Matrix<float> x = random_matrix(random, tokens, k, kind);
        DeviceMatrix device_x(in, x, k % 2 == 0 ? 8 : 1);
        const Matrix<float> weight = random_matrix(random, 1, k);
        DeviceArray<float> device_weight(to_vector(weight));
        DeviceArray<uint8_t> out(static_cast<size_t>(tokens * k) * size_of(to));
        rms_norm({device_x.view(), device_weight.data(), 1e-5f, {out.data(), to, tokens, k, k}}, nullptr);
        Matrix<float> expected(tokens, k);
        run_reference(RmsNorm{std::as_const(x).view(), weight.data(), 1e-5f, expected.view()});
        encode(to, expected.span());
        EXPECT_TRUE(same_floats(decode(to, out.read()).data(), expected.data(), tokens * k)) << k;
      }
    }
  }
}

/// Both quantizing ops, with and without a permutation, on every case and kind of row.
void test_quantize(bool norm) {
  Random random(2);
  int turn = 0;
  for (const QuantizeCase& c : quantize_cases()) {
    const int64_t k = c.spec.layout.k;
    for (const bool reorder : {false, true}) {
      const DType dtype = kTypes[turn % 3];
      const Kind kind = kKinds[turn++ % std::size(kKinds)];
      Matrix<float> x = random_matrix(random, c.tokens, k, kind);
      DeviceMatrix device_x(dtype, x, turn % 5 == 0 ? 8 : 0);
      const Matrix<float> weight = random_matrix(random, 1, k);
      DeviceArray<float> device_weight(to_vector(weight));
      const auto permutation = random_permutation(random, k);
      DeviceArray<int32_t> device_permutation(permutation);
      const int32_t* order = reorder ? device_permutation.data() : nullptr;
      const int32_t* host_order = reorder ? permutation.data() : nullptr;
      DeviceActivations out(c.tokens, c.spec, c.form);
      QuantizedActivations expected;
      expected.resize(c.tokens, c.spec);
      if (norm) {
        rms_norm_quantize({device_x.view(), device_weight.data(), 1e-5f, order, out.output()}, nullptr);
        run_reference(RmsNormQuantize{std::as_const(x).view(), weight.data(), 1e-5f, host_order, &expected});
      } else {
        reorder_quantize({device_x.view(), order, out.output()}, nullptr);
        run_reference(ReorderQuantize{std::as_const(x).view(), host_order, &expected});
      }
      EXPECT_TRUE(out.equals(expected)) << name_of(c) << ", type " << static_cast<int>(dtype) << ", kind "
                                        << static_cast<int>(kind) << (reorder ? ", reordered" : "");
    }
  }
}

TEST(CudaRmsNormQuantize, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  test_quantize(true);
}

TEST(CudaReorderQuantize, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  test_quantize(false);
}

TEST(CudaRowQuantize, RefusesWhatItsFormCannotHold) {
  ATOM_NEEDS_GPU();
  QuantizedOutput out{{{256, 0, 64, OutlierType::int8}, 4, 1.0f}};
  EXPECT_THROW(reorder_quantize({{nullptr, DType::f32, 1, 256, 256}, nullptr, out}, nullptr), Error);
  out.spec.layout.integer_scales = true;
  EXPECT_THROW(reorder_quantize({{nullptr, DType::f32, 1, 256, 256}, nullptr, out}, nullptr), Error);
  out.spec.layout.group = 128;
  out.spec.layout.integer_scales = false;
  EXPECT_THROW(reorder_quantize({{nullptr, DType::f32, 1, 256, 256}, nullptr, out}, nullptr), Error);
  out.spec.layout.integer_scales = true;
  QuantizedOutput rows = out;
  rows.form = ActivationForm::rows;
  EXPECT_THROW(reorder_quantize({{nullptr, DType::f32, 1, 256, 256}, nullptr, rows}, nullptr), Error);
  EXPECT_THROW(reorder_quantize({{nullptr, DType::f32, 1, 255, 256}, nullptr, out}, nullptr), Error);
  EXPECT_THROW(reorder_quantize({{nullptr, DType::i8, 1, 256, 256}, nullptr, out}, nullptr), Error);
}

}  // namespace
}  // namespace atom::cuda
