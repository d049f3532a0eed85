#include <array>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "kernels/cuda.h"
#include "kvcache/paged_cache.h"
#include "model/model.h"

// A model on a GPU against the same model on the CPU: both are made of the same random numbers, so in exact
// mode every float of the residual stream has to be the same.

namespace atom {
namespace {

ModelConfig small_config(int64_t head_dim, int64_t n_heads, int64_t n_kv_heads) {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden = 576;
  config.intermediate = 1536;
  config.n_layers = 3;
  config.n_heads = n_heads;
  config.n_kv_heads = n_kv_heads;
  config.head_dim = head_dim;
  config.vocab = 1000;
  config.max_positions = 1024;
  config.rms_norm_eps = 1e-5f;
  config.rope_theta = 10000.0f;
  return config;
}

struct Case {
  const char* name;
  int activation_bits;
  int64_t group;
  int outlier_bits;
  int lm_head_bits;
  KvFormat cache;
  bool rotate;
  bool quantized = true;
};

/// Hidden states and logits of steps over three sequences: whole prompts of different lengths, a chunk beside
/// decode tokens, then decode steps, which a GPU records, with a row more than there are sequences.
class Steps {
 public:
  Steps(const Model& model, KvFormat format)
      : model_(model),
        cache_(model.kv_shape(), format, 64, 16, model.device().memory),
        workspace_(model.device()),
        tables_{BlockTable(cache_), BlockTable(cache_), BlockTable(cache_)} {}

  std::vector<float> run() {
    step({150, 33, 2});
    step({5, 1, 1});
    for (int i = 0; i < 4; ++i) step({1, 1, 1});
    return std::move(result_);
  }

 private:
  void step(std::array<int64_t, 3> counts) {
    std::vector<int32_t> tokens, positions;
    std::vector<int64_t> slots;
    std::vector<SequenceSpan> spans;
    for (size_t s = 0; s < counts.size(); ++s) {
      const int64_t begin = tables_[s].length();
      tables_[s].append(counts[s], slots);
      spans.push_back(
          {static_cast<int64_t>(tokens.size()), counts[s], tables_[s].length(), tables_[s].blocks()});
      for (int64_t i = 0; i < counts[s]; ++i) {
        tokens.push_back(static_cast<int32_t>((begin + i) * 37 + static_cast<int64_t>(s) * 11) %
                         static_cast<int32_t>(model_.config().vocab));
        positions.push_back(static_cast<int32_t>(begin + i));
      }
    }
    const MatrixView<const float> hidden =
        model_.forward({tokens, positions, slots, spans}, cache_, workspace_);
    Buffer<float> logits(static_cast<size_t>(hidden.rows * model_.config().vocab), model_.device().memory);
    keep(hidden.data, hidden.rows * hidden.cols);
    model_.logits(hidden, {logits.data(), hidden.rows, model_.config().vocab}, workspace_);
    keep(logits.data(), static_cast<int64_t>(logits.size()));
  }

  void keep(const float* values, int64_t count) {
    const size_t had = result_.size();
    result_.resize(had + static_cast<size_t>(count));
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    if (Memory* memory = model_.device().memory) {
      memory->download(result_.data() + had, values, bytes);
    } else {
      std::memcpy(result_.data() + had, values, bytes);
    }
  }

  const Model& model_;
  PagedKvCache cache_;
  Workspace workspace_;
  std::array<BlockTable, 3> tables_;
  std::vector<float> result_;
};

class RandomModel : public ::testing::TestWithParam<Case> {
 protected:
  static std::optional<QuantizationConfig> quantization(const Case& c) {
    if (!c.quantized) return std::nullopt;
    QuantizationConfig config;
    config.activation_bits = c.activation_bits;
    config.group_size = c.group;
    config.outlier_channels = {64, 64, 64, 128};
    config.outlier_bits = c.outlier_bits;
    config.lm_head_bits = c.lm_head_bits;
    config.rotate_keys = c.rotate;
    return config;
  }

  static std::vector<float> run(const DeviceContext& device, const Case& c, const ModelConfig& config) {
    const auto model = Model::random(config, quantization(c), device, 7);
    return Steps(*model, c.cache).run();
  }
};

TEST_P(RandomModel, EqualsTheCpuToTheBit) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU that this build has kernels for";
  const Case& c = GetParam();
  const CudaHandle gpu = open_cuda(0);
  ThreadPool pool(4);
  const DeviceContext cpu{&pool, detect_cpu_isa()};
  DeviceContext cuda = cpu;
  cuda.cuda = gpu.device.get();
  cuda.memory = gpu.memory;
  for (const auto& [head_dim, n_heads, n_kv_heads] :
       {std::array<int64_t, 3>{64, 9, 3}, std::array<int64_t, 3>{96, 6, 6}}) {
    if (c.rotate && head_dim != 64) continue;
    const ModelConfig config = small_config(head_dim, n_heads, n_kv_heads);
    const std::vector<float> expected = run(cpu, c, config);
    const std::vector<float> found = run(cuda, c, config);
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

/// The CPU's own kernels among each other, so that a difference above is the GPU's.
TEST_P(RandomModel, EveryInstructionSetGivesTheSame) {
  ThreadPool pool(2);
  // The reference is slow.
  ModelConfig config = small_config(64, 3, 1);
  config.hidden = 192;
  config.intermediate = 256;
  config.n_layers = 1;
  config.vocab = 100;
  const std::vector<float> expected = run({&pool, CpuIsa::reference}, GetParam(), config);
  const std::vector<float> found = run({&pool, detect_cpu_isa()}, GetParam(), config);
  ASSERT_EQ(expected.size(), found.size());
  EXPECT_EQ(std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float)), 0);
}

TEST_P(RandomModel, FastKernelsAreNear) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU that this build has kernels for";
  const Case& c = GetParam();
  // Where activations have 4 bits, roundings that fall to the other side make any two computations differ.
  if (c.quantized && c.activation_bits == 4)
    GTEST_SKIP() << "roundings of 4-bit activations amplify differences";
  const CudaHandle gpu = open_cuda(0);
  ThreadPool pool(4);
  const DeviceContext cpu{&pool, detect_cpu_isa()};
  DeviceContext fast = cpu;
  fast.cuda = gpu.device.get();
  fast.memory = gpu.memory;
  fast.exact = false;
  const ModelConfig config = small_config(64, 9, 3);
  const std::vector<float> expected = run(cpu, c, config);
  const std::vector<float> found = run(fast, c, config);
  ASSERT_EQ(expected.size(), found.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - static_cast<double>(expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), c.quantized ? 2e-2 : 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Kinds, RandomModel,
                         ::testing::Values(Case{"w4a4kv4", 4, 128, 8, 16, KvFormat::int4, false},
                                           Case{"w4a4kv4_rotated", 4, 128, 8, 16, KvFormat::int4, true},
                                           Case{"w4a8kv8_head8", 8, 128, 8, 8, KvFormat::int8, false},
                                           Case{"other_groups", 4, 64, 8, 16, KvFormat::f16, false},
                                           Case{"fp16_outliers", 4, 128, 16, 16, KvFormat::f32, false},
                                           Case{"full_precision", 16, 0, 16, 16, KvFormat::f16, false,
                                                false}),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace atom
