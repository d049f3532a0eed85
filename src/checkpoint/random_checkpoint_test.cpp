#include "checkpoint/random_checkpoint.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom {
namespace {

TEST(RandomCheckpoint, HasTheTensorsOfItsShape) {
  const RandomCheckpoint checkpoint("llama-3-8b", 0, nullptr);
  EXPECT_EQ(checkpoint.format(), "random");
  EXPECT_EQ(checkpoint.config()["hidden_size"], 4096);
  EXPECT_EQ(checkpoint.names().size(), 3u + 9u * 32u);
  EXPECT_EQ(checkpoint.info("model.layers.31.self_attn.k_proj.weight").shape,
            (std::vector<int64_t>{1024, 4096}));
  EXPECT_EQ(checkpoint.info("lm_head.weight").bytes, 2u * 128256u * 4096u);
  EXPECT_FALSE(checkpoint.contains("model.layers.32.self_attn.k_proj.weight"));
  EXPECT_THROW(checkpoint.load("nothing"), Error);
  EXPECT_FALSE(RandomCheckpoint("smollm2-135m", 0, nullptr).contains("lm_head.weight"));
  EXPECT_FALSE(checkpoint.has_tokenizer());
  EXPECT_THROW(checkpoint.tokenizer_json(), Error);
  EXPECT_THROW(RandomCheckpoint("llama-4", 0, nullptr), UsageError);
}

TEST(RandomCheckpoint, ValuesDependOnSeedTensorAndPositionAlone) {
  ThreadPool pool(3);
  const RandomCheckpoint serial("llama-2-7b", 5, nullptr), parallel("llama-2-7b", 5, &pool);
  const std::string name = "model.layers.7.self_attn.v_proj.weight";
  const Tensor a = serial.load(name), b = parallel.load(name);
  ASSERT_EQ(a.bytes.size(), b.bytes.size());
  EXPECT_EQ(std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()), 0);
  const Tensor other_seed = RandomCheckpoint("llama-2-7b", 6, &pool).load(name);
  EXPECT_NE(std::memcmp(a.bytes.data(), other_seed.bytes.data(), 1000), 0);
  const Tensor other_layer = parallel.load("model.layers.8.self_attn.v_proj.weight");
  EXPECT_NE(std::memcmp(a.bytes.data(), other_layer.bytes.data(), 1000), 0);
}

TEST(RandomCheckpoint, HasTheDistributionThatItSays) {
  ThreadPool pool(2);
  const RandomCheckpoint checkpoint("llama-2-7b", 0, &pool);
  std::vector<float> values(4096 * 4096);
  checkpoint.read_float("model.layers.0.self_attn.q_proj.weight", values);
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0.0, 1e-4);
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 2e-4);

  std::vector<float> norm(4096);
  checkpoint.read_float("model.layers.0.input_layernorm.weight", norm);
  int large = 0;
  for (const float value : norm) large += value > 4.0f;
  EXPECT_GT(large, 10);
  EXPECT_LT(large, 64);
}

}  // namespace
}  // namespace atom
