#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/numerics.h"

namespace atom::cuda {
namespace {

using namespace fused_test;

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

TEST(SiluConfig, CoversEveryUnitAndFitsABlock) {
  for (const int64_t k : {4, 128, 576, 4096, 11008, 14336, 28672, 32768}) {
    for (const int64_t tokens : {1, 16, 40, 64, 100, 264, 265, 16384}) {
      const ChannelLayout layout{k, k > 128 ? 128 : 0};
      ASSERT_TRUE(fused::is_fast_silu(layout));
      const auto config = fused::silu_config(layout, tokens, 132);
      EXPECT_GE(config.units_per_block << config.cluster_bits, fused::row_units(layout));
      EXPECT_LE(1 << config.cluster_bits, fused::kMaxSiluCluster);
      EXPECT_GE(config.units_per_warp * config.warps, config.units_per_block);
      EXPECT_LE(config.warps, fused::max_silu_warps(config.units_per_warp));
      EXPECT_TRUE(config.units_per_warp == 1 || config.units_per_warp == 2 || config.units_per_warp == 4);
    }
  }
  EXPECT_FALSE(fused::is_fast_silu({36864, 128}));
}

TEST(CudaSiluMul, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(3);
  std::vector<int64_t> sizes = {64, 576, 1000, 11008};
  for (int64_t k = 1; k <= 33; ++k) sizes.push_back(k);
  int turn = 0;
  for (const int64_t k : sizes) {
    const int64_t tokens = k == 576 ? 300 : 3;
    for (const DType in : kTypes) {
      for (const DType to : kTypes) {
        if (in != DType::f32 && in != to) continue;
        Matrix<float> x = random_matrix(random, tokens, 2 * k, kKinds[turn++ % std::size(kKinds)]);
        // Every branch of exp.
        for (float& f : x.span()) f *= random.below(4) == 0 ? 30.0f : 1.0f;
        DeviceMatrix device_x(in, x, 8);
        DeviceArray<uint8_t> out(static_cast<size_t>(tokens * k) * size_of(to));
        silu_mul({device_x.view(), {out.data(), to, tokens, k, k}}, nullptr);
        Matrix<float> expected(tokens, k);
        run_reference(SiluMul{std::as_const(x).view(), expected.view()});
        encode(to, expected.span());
        EXPECT_TRUE(same_floats(decode(to, out.read()).data(), expected.data(), tokens * k)) << k;
      }
    }
  }
}

constexpr int kChunk = 1 << 24;

/// Gate: the floats whose bits are begin, begin + 1, ...; up: 1. x [rows, 2 * inner].
__global__ void fill_floats(uint32_t begin, int inner, float* x) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  float* row = x + int64_t{i / inner} * 2 * inner;
  row[i % inner] = __uint_as_float(begin + static_cast<uint32_t>(i));
  row[inner + i % inner] = 1.0f;
}

__global__ void count_wrong(uint32_t begin, const float* y, uint32_t* wrong) {
  const auto i = blockIdx.x * blockDim.x + threadIdx.x;
  const float expected = numerics::silu(__uint_as_float(begin + i));
  const bool equal = __float_as_uint(y[i]) == __float_as_uint(expected) || (isnan(y[i]) && isnan(expected));
  if (!equal) atomicAdd(wrong, 1u);
}

TEST(CudaSiluMul, IsTheContractsForEveryFloat) {
  ATOM_NEEDS_GPU();
  constexpr int kInner = 1 << 20;
  DeviceArray<float> x(2 * size_t{kChunk});
  DeviceArray<float> y(size_t{kChunk});
  DeviceArray<uint32_t> wrong(std::vector<uint32_t>{0});
  for (uint32_t chunk = 0; chunk < 256; ++chunk) {
    fill_floats<<<kChunk / 256, 256>>>(chunk * kChunk, kInner, x.data());
    silu_mul({{x.data(), DType::f32, kChunk / kInner, 2 * kInner, 2 * kInner},
              {y.data(), DType::f32, kChunk / kInner, kInner, kInner}},
             nullptr);
    count_wrong<<<kChunk / 256, 256>>>(chunk * kChunk, y.data(), wrong.data());
  }
  EXPECT_EQ(wrong.read().front(), 0u);
}

TEST(CudaSiluMulQuantize, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(4);
  int turn = 0;
  for (const QuantizeCase& c : quantize_cases()) {
    const DType dtype = kTypes[turn % 3];
    const Kind kind = kKinds[turn++ % std::size(kKinds)];
    Matrix<float> x = random_matrix(random, c.tokens, 2 * c.spec.layout.k, kind);
    DeviceMatrix device_x(dtype, x, 0);
    DeviceActivations out(c.tokens, c.spec, c.form);
    silu_mul_quantize({device_x.view(), out.output()}, nullptr);
    QuantizedActivations expected;
    expected.resize(c.tokens, c.spec);
    run_reference(SiluMulQuantize{std::as_const(x).view(), &expected});
    EXPECT_TRUE(out.equals(expected))
        << name_of(c) << ", type " << static_cast<int>(dtype) << ", kind " << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace atom::cuda
