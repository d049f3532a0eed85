#include "model/config.h"

#include <cmath>
#include <functional>
#include <numbers>

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

Json config_of(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 512},        {"intermediate_size", 1024},
          {"num_hidden_layers", 4},   {"num_attention_heads", 32}, {"vocab_size", 1000}};
}

ModelConfig read(const Json& json) {
  return ModelConfig::from_json(json, "config.json");
}

/// The error of a configuration, "no error" where there is none.
std::string error_of(const Json& json) {
  try {
    read(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Json with(Json json, const Json& changes) {
  for (const auto& [name, value] : changes.items()) json[name] = value;
  return json;
}

constexpr const char* kFamilies[] = {"llama", "mistral", "qwen2", "qwen3"};

TEST(ModelConfig, DefaultsAreThoseOfTransformers) {
  for (const std::string family : kFamilies) {
    const ModelConfig config = read(config_of(family));
    EXPECT_EQ(config.model_type, family);
    EXPECT_EQ(config.rms_norm_eps, 1e-6f);
    EXPECT_EQ(config.rope_theta, 10000.0f);
    EXPECT_FALSE(config.tied_embeddings);
    EXPECT_EQ(config.qkv_bias, family == "qwen2");
    EXPECT_FALSE(config.o_bias || config.mlp_bias);
    EXPECT_EQ(config.head_norms, family == "qwen3");
    EXPECT_EQ(config.head_dim, family == "qwen3" ? 128 : 16);
    EXPECT_EQ(config.n_kv_heads, family == "mistral" ? 8 : 32);
    EXPECT_EQ(config.max_positions, family == "llama" ? 2048 : family == "mistral" ? 131072 : 32768);
    EXPECT_EQ(config.window_layers(), family == "mistral" ? 4 : 0);
    // Null heads are as many as there are.
    EXPECT_EQ(read(with(config_of(family), {{"num_key_value_heads", nullptr}})).n_kv_heads, 32);
  }
}

TEST(ModelConfig, WindowsOfLayers) {
  const auto windows = [](const Json& json) {
    const ModelConfig config = read(json);
    std::vector<int64_t> found;
    for (int64_t i = 0; i < config.n_layers; ++i) found.push_back(config.window_of(i));
    return found;
  };
  using Windows = std::vector<int64_t>;
  const Json mistral = config_of("mistral"), qwen = config_of("qwen2");
  EXPECT_EQ(windows(mistral), Windows(4, 4096));
  EXPECT_EQ(windows(with(mistral, {{"sliding_window", nullptr}})), Windows(4, 0));
  EXPECT_EQ(windows(with(mistral, {{"sliding_window", 7}})), Windows(4, 7));
  EXPECT_EQ(windows(with(qwen, {{"sliding_window", 9}, {"max_window_layers", 1}})), Windows(4, 0));
  const Json used = with(qwen, {{"use_sliding_window", true}, {"sliding_window", 9}});
  EXPECT_EQ(windows(used), Windows(4, 0));  // max_window_layers is 28
  EXPECT_EQ(windows(with(used, {{"max_window_layers", 3}})), (Windows{0, 0, 0, 9}));
  EXPECT_EQ(windows(with(used, {{"max_window_layers", 0}})), Windows(4, 9));
  EXPECT_EQ(windows(with(used, {{"sliding_window", nullptr}, {"max_window_layers", 0}})), Windows(4, 0));
  const Json types = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  const Json full = {"full_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_EQ(windows(with(used, {{"layer_types", types}})), (Windows{9, 0, 9, 0}));
  EXPECT_EQ(windows(with(used, {{"layer_types", full}, {"max_window_layers", 0}})), Windows(4, 0));
  for (const std::string family : kFamilies) {
    EXPECT_NE(error_of(with(config_of(family), {{"layer_types", types}})).find("layer_types"),
              std::string::npos);
  }
  EXPECT_EQ(error_of(with(config_of("llama"), {{"layer_types", full}})), "no error");
  EXPECT_EQ(error_of(with(config_of("llama"), {{"sliding_window", 8}, {"use_sliding_window", false}})),
            "no error");
}

/// Changes of any configuration that have to be refused, and the field that the error names.
TEST(ModelConfig, NamesTheFieldThatIsWrong) {
  for (const std::string family : kFamilies) {
    const Json good = config_of(family);
    ASSERT_EQ(error_of(good), "no error");
    const auto expect_refused = [&](const Json& changes, const std::string& field) {
      const std::string error = error_of(with(good, changes));
      EXPECT_NE(error.find("config.json: " + field), std::string::npos) << family << changes << error;
    };
    for (const std::string field :
         {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
      Json without = good;
      without.erase(field);
      EXPECT_NE(error_of(without).find(field), std::string::npos);
      for (const Json& bad : {Json(0), Json(-4), Json("64"), Json(1e30), Json(UINT64_MAX), Json(true)}) {
        expect_refused({{field, bad}}, field);
      }
    }
    expect_refused({{"architectures", {"MixtralForCausalLM"}}}, "architectures");
    expect_refused({{"num_key_value_heads", 3}}, "num_key_value_heads");
    expect_refused({{"head_dim", 15}}, "head_dim");
    expect_refused({{"hidden_act", "gelu"}}, "hidden_act");
    expect_refused({{"rms_norm_eps", -1}}, "rms_norm_eps");
    expect_refused({{"rms_norm_eps", 1e60}}, "rms_norm_eps");
    expect_refused({{"rope_theta", 0}}, "rope_theta");
    expect_refused({{"tie_word_embeddings", "yes"}}, "tie_word_embeddings");
    // What other families or exports have, and any field that nobody knows.
    for (const auto& [field, value] : std::initializer_list<std::pair<std::string, Json>>{
             {"partial_rotary_factor", 0.5},
             {"rope_interleaved", true},
             {"qk_layernorm", true},
             {"use_qk_norm", true},
             {"logit_scale", 0.25},
             {"logits_scaling", 8.0},
             {"residual_multiplier", 0.22},
             {"embedding_multiplier", 12.0},
             {"attention_multiplier", 0.0078125},
             {"final_logit_softcapping", 30.0},
             {"attn_logit_softcapping", 50.0},
             {"clip_qkv", 8.0},
             {"num_local_experts", 8},
             {"num_experts", 64},
             {"query_pre_attn_scalar", 224},
             {"no_rope_layers", {1, 0}},
             {"attention_chunk_size", 8192},
             {"bias", true},
             {"qkv_bias", true},
             {"text_config", {{"hidden_size", 2}}},
             {"dual_chunk_attention_config", {{"chunk_size", 2}}},
             {"is_encoder_decoder", true},
             {"norm_type", "layernorm"},
             {"something_new", 3}}) {
      expect_refused({{field, value}}, field);
    }
    if (family != "llama") expect_refused({{"mlp_bias", true}}, "mlp_bias");
    if (family == "mistral" || family == "qwen2")
      expect_refused({{"attention_bias", true}}, "attention_bias");
    if (family == "llama") expect_refused({{"sliding_window", 4096}}, "sliding_window");
    if (family == "llama") expect_refused({{"use_sliding_window", true}}, "use_sliding_window");
    if (family == "mistral") expect_refused({{"use_sliding_window", false}}, "use_sliding_window");
    const Json window = {{"use_sliding_window", true}};
    if (family != "llama") expect_refused(with(window, {{"sliding_window", 0}}), "sliding_window");
    // What is switched off or leaves the mathematics alone passes.
    EXPECT_EQ(error_of(with(good, {{"rope_scaling", nullptr},
                                   {"final_logit_softcapping", nullptr},
                                   {"use_mrope", false},
                                   {"pruned_heads", Json::object()},
                                   {"partial_rotary_factor", 1.0},
                                   {"rope_interleaved", false},
                                   {"is_llama_config", true},
                                   {"transformers.js_config", {{"kv_cache_dtype", {{"fp16", "float16"}}}}},
                                   {"pretraining_tp", 2},
                                   {"attention_dropout", 0.1},
                                   {"auto_map", {{"AutoConfig", "x.Y"}}},
                                   {"hidden_act", "silu"}})),
              "no error");
  }
  EXPECT_NE(error_of(config_of("mixtral"))
                .find("model_type: expected llama, mistral, qwen2 or qwen3, found "
                      "\"mixtral\""),
            std::string::npos);
  EXPECT_NE(error_of(with(config_of("llama"), {{"hidden_size", 500}})).find("hidden_size"),
            std::string::npos);
}

const Json kLlama3 = {{"rope_type", "llama3"},
                      {"factor", 8.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 256}};
const Json kYarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 256}};

TEST(RopeScaling, NamesTheParameterThatIsWrong) {
  const Json good = config_of("llama");
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const auto expect_refused = [&](const Json& scaling, const std::string& parameter) {
      const std::string error = error_of(with(good, {{field, scaling}}));
      EXPECT_NE(error.find(std::string(field) + parameter), std::string::npos) << scaling << error;
    };
    for (const Json& scaling : {kLlama3, kYarn, Json{{"type", "linear"}, {"factor", 2}},
                                Json{{"rope_type", "default"}, {"rope_theta", 5.0}}, Json::object()}) {
      EXPECT_EQ(error_of(with(good, {{field, scaling}})), "no error") << scaling;
    }
    for (const char* kind : {"dynamic", "longrope", "proportional", "su", "mrope", "LLAMA3"}) {
      expect_refused({{"rope_type", kind}, {"factor", 2.0}}, ".rope_type");
      expect_refused({{"type", kind}, {"factor", 2.0}}, ".type");
    }
    expect_refused({{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 2.0}}, ".rope_type");
    expect_refused({{"rope_type", 3}}, ".rope_type");
    expect_refused({{"rope_type", "default"}, {"factor", 2.0}}, ".factor");
    expect_refused({{"rope_type", "default"}, {"rope_theta", -1.0}}, ": rope_theta");
    expect_refused({{"rope_type", "linear"}}, ".factor");
    expect_refused({{"full_attention", {{"rope_type", "default"}}}}, ".full_attention");
    for (const Json& bad : {Json(0), Json(-2), Json(0.5), Json(1e30), Json("2"), Json(true)}) {
      expect_refused({{"rope_type", "linear"}, {"factor", bad}}, ".factor");
      expect_refused(with(kLlama3, {{"factor", bad}}), ".factor");
      expect_refused(with(kYarn, {{"factor", bad}}), ".factor");
    }
    for (const std::string name : {"factor", "low_freq_factor", "high_freq_factor"}) {
      Json without = kLlama3;
      without.erase(name);
      expect_refused(without, "." + name);
    }
    expect_refused(with(kLlama3, {{"high_freq_factor", 1.0}}), ".high_freq_factor");
    expect_refused(with(kLlama3, {{"attention_factor", 1.5}}), ".attention_factor");
    expect_refused(with(kLlama3, {{"original_max_position_embeddings", 0}}),
                   ".original_max_position_embeddings");
    for (const std::string name :
         {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}) {
      expect_refused(with(kYarn, {{name, -0.5}}), "." + name);
    }
    expect_refused(with(kYarn, {{"beta_slow", 64}}), ".beta_fast");
    expect_refused(with(kYarn, {{"truncate", 1}}), ".truncate");
    expect_refused(with(kYarn, {{"low_freq_factor", 1.0}}), ".low_freq_factor");
    expect_refused(with(kYarn, {{"partial_rotary_factor", 0.5}}), ".partial_rotary_factor");
    expect_refused(with(kYarn, {{"rope_theta", 1.0}}), ": rope_theta");
    const Json factors = {{"rope_type", "frequency_factors"}, {"factors", std::vector<double>(8, 2.0)}};
    EXPECT_EQ(error_of(with(good, {{field, factors}})), "no error");
    for (const Json& bad :
         {Json(nullptr), Json(2.0), Json(std::vector<double>(7, 2.0)), Json(std::vector<double>(8, 0.0)),
          Json(std::vector<double>(8, -1.0)), Json(std::vector<std::string>(8, "a"))}) {
      expect_refused(with(factors, {{"factors", bad}}), ".factors");
    }
  }
  EXPECT_NE(
      error_of(with(good, {{"rope_scaling", kYarn}, {"rope_parameters", kLlama3}})).find("rope_scaling"),
      std::string::npos);
}

TEST(RopeScaling, FrequenciesOfEveryKind) {
  const auto frequencies = [](const Json& scaling) {
    return rope_frequencies(read(with(config_of("llama"), {{"rope_scaling", scaling}})));
  };
  const auto plain = frequencies(nullptr);
  ASSERT_EQ(plain.size(), 8u);
  const auto linear = frequencies({{"type", "linear"}, {"factor", 4}});
  std::vector<double> factors;
  for (int i = 0; i < 8; ++i) factors.push_back(1 + i * 0.5);
  const auto divided = frequencies({{"rope_type", "frequency_factors"}, {"factors", factors}});
  const auto llama3 = frequencies(kLlama3), yarn = frequencies(kYarn);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_FLOAT_EQ(plain[i], std::pow(10000.0f, -static_cast<float>(i) / 8));
    EXPECT_FLOAT_EQ(linear[i], plain[i] / 4);
    EXPECT_FLOAT_EQ(divided[i], plain[i] / static_cast<float>(factors[i]));
    // Both keep what turns often within 256 positions and divide what hardly turns.
    const double turns = 256 * static_cast<double>(plain[i]) / (2 * std::numbers::pi);
    if (turns > 4) {
      EXPECT_EQ(llama3[i], plain[i]);
    } else if (turns < 1) {
      EXPECT_FLOAT_EQ(llama3[i], plain[i] / 8);
    }
  }
  EXPECT_EQ(yarn.front(), plain.front());
  EXPECT_FLOAT_EQ(yarn.back(), plain.back() / 4);
  const auto factor_of = [](const Json& changes) {
    return read(with(config_of("llama"), {{"rope_scaling", with(kYarn, changes)}}))
        .rope_scaling.attention_factor;
  };
  EXPECT_DOUBLE_EQ(factor_of({}), 0.1 * std::log(4.0) + 1);
  EXPECT_DOUBLE_EQ(factor_of({{"attention_factor", 0.6}}), 0.6);
  EXPECT_DOUBLE_EQ(factor_of({{"mscale", 2.0}, {"mscale_all_dim", 0.5}}),
                   (0.2 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1));
  EXPECT_DOUBLE_EQ(factor_of({{"mscale", 2.0}}), 0.1 * std::log(4.0) + 1);
  // Without a factor: 2048 / 256.
  EXPECT_DOUBLE_EQ(factor_of({{"factor", nullptr}}), 0.1 * std::log(8.0) + 1);
  // Beside the object, the original length has priority.
  const auto original = [](const Json& changes) {
    return read(with(config_of("llama"), changes)).rope_scaling.original_positions;
  };
  EXPECT_EQ(original({{"rope_scaling", kYarn}, {"original_max_position_embeddings", 100}}), 100);
  EXPECT_EQ(original({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}}}), 2048);
}

}  // namespace
}  // namespace atom
