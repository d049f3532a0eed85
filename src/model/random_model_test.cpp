#include "model/testing/random_model.h"

#include <cstring>

#include <gtest/gtest.h>

namespace atom {
namespace {

using namespace test_support;

class RandomModel : public ::testing::TestWithParam<RandomCase> {};

/// The CPU's own kernels among each other, so that a difference on a GPU is the GPU's.
TEST_P(RandomModel, EveryInstructionSetGivesTheSame) {
  ThreadPool pool(2);
  // The reference is slow.
  ModelConfig config = small_config(64, 3, 1);
  config.hidden = 192;
  config.intermediate = 256;
  config.n_layers = 2;
  config.vocab = 100;
  config = with_everything(config);
  const std::vector<float> expected = run_random_model({&pool, CpuIsa::reference}, GetParam(), config);
  const std::vector<float> found = run_random_model({&pool, detect_cpu_isa()}, GetParam(), config);
  ASSERT_EQ(expected.size(), found.size());
  EXPECT_EQ(std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float)), 0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, RandomModel, ::testing::ValuesIn(kRandomCases),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace atom
