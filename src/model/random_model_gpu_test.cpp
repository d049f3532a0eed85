#include <array>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "kernels/cuda.h"
#include "model/testing/random_model.h"

// A model on a GPU against the same model on the CPU: both are made of the same random numbers, so in exact
// mode every float of the residual stream has to be the same.

namespace atom {
namespace {

using namespace test_support;

class GpuModel : public ::testing::TestWithParam<RandomCase> {};

TEST_P(GpuModel, EqualsTheCpuToTheBit) {
  if (!first_cuda_device()) GTEST_SKIP() << "no GPU that this build has kernels for";
  const RandomCase& c = GetParam();
  const CudaHandle gpu = open_cuda(*first_cuda_device());
  ThreadPool pool(4);
  const DeviceContext cpu{&pool, detect_cpu_isa()};
  DeviceContext cuda = cpu;
  cuda.cuda = gpu.device.get();
  cuda.memory = gpu.memory;
  for (const auto& [head_dim, n_heads, n_kv_heads] :
       {std::array<int64_t, 3>{64, 9, 3}, std::array<int64_t, 3>{96, 6, 6}}) {
    if (c.rotate && head_dim != 64) continue;
    ModelConfig config = small_config(head_dim, n_heads, n_kv_heads);
    if (head_dim != 64 || c.rotate) config = with_everything(config);
    const std::vector<float> expected = run_random_model(cpu, c, config);
    const std::vector<float> found = run_random_model(cuda, c, config);
    ASSERT_EQ(expected.size(), found.size());
    size_t different = 0, first = expected.size();
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_TRUE(std::isfinite(expected[i]));
      if (std::memcmp(&expected[i], &found[i], sizeof(float)) == 0) continue;
      if (different++ == 0) first = i;
    }
    EXPECT_EQ(different, 0u) << "of " << expected.size() << ", the first at " << first << ": "
                             << expected[first] << " on the CPU, " << found[first] << " on the GPU";
  }
}

class FastGpuModel : public GpuModel {};

TEST_P(FastGpuModel, IsNearTheCpu) {
  if (!first_cuda_device()) GTEST_SKIP() << "no GPU that this build has kernels for";
  const RandomCase& c = GetParam();
  const CudaHandle gpu = open_cuda(*first_cuda_device());
  ThreadPool pool(4);
  const DeviceContext cpu{&pool, detect_cpu_isa()};
  DeviceContext fast = cpu;
  fast.cuda = gpu.device.get();
  fast.memory = gpu.memory;
  fast.exact = false;
  const ModelConfig config = small_config(64, 9, 3);
  const std::vector<float> expected = run_random_model(cpu, c, config);
  const std::vector<float> found = run_random_model(fast, c, config);
  ASSERT_EQ(expected.size(), found.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - static_cast<double>(expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  // What roundings that fall to the other side cost: of float activations to FP16, of 8-bit activations, of
  // those with one step for a whole token, of FP8 ones, whose steps are larger.
  const auto bound = [&] {
    if (c.activation_bits == 16) return 2e-3;
    return c.kind == RandomCase::Kind::low_bit ? 2e-2 : c.kind == RandomCase::Kind::int8 ? 5e-2 : 6e-2;
  };
  EXPECT_LT(std::sqrt(difference / norm), bound());
}

INSTANTIATE_TEST_SUITE_P(Kinds, GpuModel, ::testing::ValuesIn(kRandomCases),
                         [](const auto& kind) { return std::string(kind.param.name); });

/// Where activations have 4 bits, roundings that fall to the other side make any two computations differ.
std::vector<RandomCase> cases_of_more_bits() {
  std::vector<RandomCase> cases;
  for (const RandomCase& c : kRandomCases)
    if (c.activation_bits > 4) cases.push_back(c);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Kinds, FastGpuModel, ::testing::ValuesIn(cases_of_more_bits()),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace atom
