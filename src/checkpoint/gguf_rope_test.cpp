#include "checkpoint/gguf_rope.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/gguf_checkpoint.h"
#include "checkpoint/testing/tiny_gguf.h"

namespace atom {
namespace {

using test_support::GgufBuilder;

/// The configuration's rope_scaling, or the error.
std::string scaling_of(const std::function<void(GgufBuilder&)>& change, int64_t head_dim = 16) {
  test_support::TinyLlama tiny;
  tiny.head_dim = head_dim;
  tiny.rope_theta = 500000.0f;
  GgufBuilder builder = test_support::make_tiny_metadata(tiny);
  change(builder);
  const std::string bytes = builder.build();
  try {
    const GgufCheckpoint checkpoint(std::as_bytes(std::span(bytes)), "tiny.gguf");
    return checkpoint.config().value("rope_scaling", nlohmann::ordered_json()).dump();
  } catch (const Error& error) {
    return error.what();
  }
}

std::string with_factors(const std::vector<float>& factors, int64_t head_dim) {
  return scaling_of(
      [&](auto& b) {
        b.add_tensor("rope_freqs.weight", {static_cast<int64_t>(factors.size())}, 0,
                     test_support::encode_values(factors, 0));
      },
      head_dim);
}

TEST(GgufRope, ReadsLinearAndYarn) {
  const auto scaling = [](const char* type, float factor) {
    return [=](auto& b) {
      b.add_string("llama.rope.scaling.type", type).add_f32("llama.rope.scaling.factor", factor);
    };
  };
  EXPECT_EQ(scaling_of([](auto&) {}), "null");
  EXPECT_EQ(scaling_of(scaling("none", 4)), "null");
  EXPECT_EQ(scaling_of(scaling("linear", 1)), "null");
  EXPECT_EQ(scaling_of(scaling("linear", 0)), "null");
  EXPECT_EQ(scaling_of(scaling("linear", 2.5f)), R"({"rope_type":"linear","factor":2.5})");
  EXPECT_EQ(scaling_of([](auto& b) { b.add_f32("llama.rope.scale_linear", 4); }),
            R"({"rope_type":"linear","factor":4.0})");
  EXPECT_EQ(scaling_of(scaling("yarn", 4)),
            R"({"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":256})");
  EXPECT_EQ(scaling_of([&](auto& b) {
              scaling("yarn", 4)(b);
              b.add_u32("llama.rope.scaling.original_context_length", 64)
                  .add_f32("llama.rope.scaling.yarn_beta_fast", 16)
                  .add_f32("llama.rope.scaling.yarn_beta_slow", 0.7f)
                  .add_f32("llama.rope.scaling.yarn_ext_factor", 1);
            }),
            R"({"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":64,"beta_fast":16.0,)"
            R"("beta_slow":0.7})");
  const auto attention = nlohmann::json::parse(scaling_of([&](auto& b) {
    scaling("yarn", 4)(b);
    b.add_f32("llama.rope.scaling.attn_factor", 0.5f);
  }));
  EXPECT_DOUBLE_EQ(attention["attention_factor"].get<double>(), 0.5 * (0.1 * std::log(4.0) + 1));
}

TEST(GgufRope, KnowsTheFactorsOfLlama3) {
  for (const double factor : {8.0, 32.0}) {
    std::vector<float> factors;
    for (int i = 0; i < 64; ++i) {
      const double frequency = std::pow(500000.0, -i / 64.0);
      const double wavelength = 2 * M_PI / frequency;
      const double smooth = (8192 / wavelength - 1) / 3;
      factors.push_back(static_cast<float>(wavelength < 2048   ? 1
                                           : wavelength > 8192 ? factor
                                                               : 1 / ((1 - smooth) / factor + smooth)));
    }
    EXPECT_EQ(with_factors(factors, 128),
              fmt::format(R"({{"rope_type":"llama3","factor":{:.1f},"low_freq_factor":1.0,)"
                          R"("high_freq_factor":4.0,"original_max_position_embeddings":8192}})",
                          factor));
    factors[35] *= 1.001f;
    const auto other = nlohmann::json::parse(with_factors(factors, 128));
    EXPECT_EQ(other["rope_type"], "frequency_factors");
    EXPECT_EQ(other["factors"].size(), 64u);
    EXPECT_EQ(other["factors"][35].get<float>(), factors[35]);
  }
  EXPECT_EQ(with_factors({1, 1}, 4), "null");
  EXPECT_EQ(with_factors({1, 2.5f}, 4), R"({"rope_type":"frequency_factors","factors":[1.0,2.5]})");
}

TEST(GgufRope, RefusesWhatItDoesNotKnow) {
  const auto expect_contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
  };
  const auto with = [](const char* key, float value) {
    return scaling_of([&](auto& b) {
      b.add_string("llama.rope.scaling.type", "yarn").add_f32("llama.rope.scaling.factor", 4);
      b.add_f32(key, value);
    });
  };
  expect_contains(scaling_of([](auto& b) { b.add_string("llama.rope.scaling.type", "longrope"); }),
                  "llama.rope.scaling.type: expected \"none\", \"linear\" or \"yarn\", found \"longrope\"");
  expect_contains(with("llama.rope.scaling.factor", -1), "llama.rope.scaling.factor: expected a positive");
  expect_contains(with("llama.rope.scaling.factor", INFINITY), "llama.rope.scaling.factor: expected a pos");
  expect_contains(with("llama.rope.scaling.yarn_ext_factor", 0.5f), "yarn_ext_factor: expected 1, found 0.5");
  expect_contains(with("llama.rope.scaling.yarn_attn_factor", 2), "yarn_attn_factor: expected 1, found 2");
  expect_contains(with("llama.rope.scaling.yarn_log_multiplier", 0.1f), "yarn_log_multiplier: expected 0");
  expect_contains(with("llama.rope.scaling.alpha", 1), "\"llama.rope.scaling.alpha\" is not supported");
  expect_contains(scaling_of([](auto& b) { b.add_f32("llama.rope.scaling.attn_factor", 2); }),
                  "llama.rope.scaling.attn_factor: expected 1, found 2");
  expect_contains(with_factors({1}, 4), "tensor \"rope_freqs.weight\": expected 2 values of type F32");
  expect_contains(with_factors({1, 0}, 4), "expected positive numbers, found 0");
  expect_contains(with_factors({NAN, 1}, 4), "expected positive numbers, found nan");
  expect_contains(scaling_of([](auto& b) {
                    b.add_f32("llama.rope.scaling.factor", 2);
                    b.add_tensor("rope_freqs.weight", {8}, 0,
                                 test_support::encode_values(std::vector<float>(8, 3.0f), 0));
                  }),
                  "tensor \"rope_freqs.weight\": not supported beside llama.rope.scaling.type");
}

}  // namespace
}  // namespace atom
