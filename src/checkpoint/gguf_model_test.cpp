#include "checkpoint/gguf_model.h"

#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/gguf_checkpoint.h"
#include "checkpoint/gguf_tensors.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/tiny_gguf.h"

namespace atom {
namespace {

using test_support::expect_contains;
using test_support::GgufBuilder;
using test_support::make_tiny_builder;
using test_support::make_tiny_metadata;
using test_support::TinyLlama;

GgufCheckpoint open(const std::string& bytes) {
  return {std::as_bytes(std::span(bytes)), "tiny.gguf"};
}

std::string open_error(const GgufBuilder& builder) {
  const std::string bytes = builder.build();
  try {
    open(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(GgufModel, MakesConfig) {
  TinyLlama tiny;
  tiny.head_dim = 32;
  tiny.tied = false;
  const std::string bytes = make_tiny_builder(tiny).build();
  const auto checkpoint = open(bytes);
  EXPECT_EQ(
      checkpoint.config().dump(),
      R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"intermediate_size":96,)"
      R"("num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"hidden_act":"silu",)"
      R"("rms_norm_eps":1e-05,"rope_theta":10000.0,"max_position_embeddings":256,"vocab_size":288,)"
      R"("attention_bias":false,"mlp_bias":false,"tie_word_embeddings":false,"torch_dtype":"float32",)"
      R"("bos_token_id":1,"eos_token_id":2,"pad_token_id":2})");
}

TEST(GgufModel, FillsInDefaults) {
  GgufBuilder builder = make_tiny_metadata({});
  for (const char* key : {"llama.attention.head_count_kv", "llama.attention.key_length", "llama.vocab_size",
                          "llama.rope.freq_base", "tokenizer.ggml.bos_token_id"}) {
    builder.remove(key);
  }
  builder.remove("llama.attention.value_length").add_u32("llama.attention.value_length", 16);
  const std::string bytes = builder.build();
  const auto checkpoint = open(bytes);
  const auto& config = checkpoint.config();
  EXPECT_EQ(config["num_key_value_heads"], 4);
  EXPECT_EQ(config["head_dim"], 16);
  EXPECT_EQ(config["vocab_size"], 288);
  EXPECT_EQ(config["rope_theta"], 10000.0);
  EXPECT_FALSE(config.contains("bos_token_id"));
}

TEST(GgufModel, ListsSeveralEndTokens) {
  const auto eos = [](GgufBuilder builder) {
    const std::string bytes = builder.build();
    return open(bytes).config().at("eos_token_id").dump();
  };
  EXPECT_EQ(eos(make_tiny_metadata({}).add_u32("tokenizer.ggml.eot_token_id", 2)), "2");
  EXPECT_EQ(eos(make_tiny_metadata({}).add_u32("tokenizer.ggml.eot_token_id", 5)), "[2,5]");
  EXPECT_EQ(eos(make_tiny_metadata({})
                    .add_u32("tokenizer.ggml.eot_token_id", 5)
                    .add_u32("tokenizer.ggml.eom_token_id", 6)),
            "[2,5,6]");
  EXPECT_EQ(eos(make_tiny_metadata({})
                    .remove("tokenizer.ggml.eos_token_id")
                    .add_u32("tokenizer.ggml.eot_token_id", 5)),
            "5");
}

TEST(GgufModel, RefusesWhatItDoesNotKnow) {
  const auto with = [](const std::function<void(GgufBuilder&)>& change) {
    GgufBuilder builder = make_tiny_metadata({});
    change(builder);
    return open_error(builder);
  };
  expect_contains(with([](auto& b) { b.add_string("general.architecture", "mamba"); }),
                  "tiny.gguf: general.architecture: expected one of \"llama\", \"qwen2\", \"qwen3\", found "
                  "\"mamba\"");
  expect_contains(with([](auto& b) { b.remove("general.architecture"); }),
                  "\"general.architecture\" is missing");
  expect_contains(with([](auto& b) { b.remove("llama.block_count"); }), "\"llama.block_count\" is missing");
  expect_contains(with([](auto& b) { b.add_u32("llama.block_count", 0); }),
                  "llama.block_count: expected 1 to");
  expect_contains(with([](auto& b) { b.add_u64("llama.embedding_length", 1ull << 40); }),
                  "llama.embedding_length: expected 1 to");
  expect_contains(with([](auto& b) { b.add_string("llama.embedding_length", "64"); }),
                  "llama.embedding_length");
  expect_contains(with([](auto& b) {
                    b.add_ints("llama.attention.head_count", {4, 4});
                  }),
                  "llama.attention.head_count");
  expect_contains(with([](auto& b) { b.add_u32("llama.attention.head_count_kv", 3); }),
                  "expected a divisor of the 4 heads, found 3");
  expect_contains(with([](auto& b) { b.add_u32("llama.attention.key_length", 15); }),
                  "expected an even head size, found 15");
  expect_contains(
      with([](auto& b) { b.remove("llama.attention.key_length").add_u32("llama.embedding_length", 66); }),
      "expected a divisor of the embedding length 66, found 4");
  expect_contains(with([](auto& b) { b.add_u32("llama.attention.value_length", 8); }),
                  "llama.attention.value_length: expected 16, found 8");
  expect_contains(with([](auto& b) { b.add_u32("llama.rope.dimension_count", 8); }),
                  "llama.rope.dimension_count: expected 16, found 8");
  expect_contains(with([](auto& b) { b.add_f32("llama.rope.freq_base", NAN); }),
                  "llama.rope.freq_base: expected a positive number");
  expect_contains(with([](auto& b) { b.add_f32("llama.rope.freq_base", -1); }), "llama.rope.freq_base");
  expect_contains(with([](auto& b) { b.add_f32("llama.attention.layer_norm_rms_epsilon", 0); }),
                  "layer_norm_rms_epsilon");
  expect_contains(with([](auto& b) { b.add_u32("llama.expert_count", 8); }),
                  "llama.expert_count: expected 0, found 8");
  expect_contains(with([](auto& b) { b.add_bool("llama.attention.causal", false); }),
                  "llama.attention.causal");
  expect_contains(with([](auto& b) { b.add_f32("llama.attention.scale", 8); }),
                  "metadata key \"llama.attention.scale\" is not supported");
  expect_contains(with([](auto& b) { b.add_u64("llama.attention.sliding_window", 1ull << 40); }),
                  "llama.attention.sliding_window: expected at most");
  expect_contains(with([](auto& b) { b.add_u32("llama.pooling_type", 2); }),
                  "llama.pooling_type: expected 0, found 2");
  expect_contains(with([](auto& b) { b.add_string("general.type", "adapter"); }),
                  "general.type: expected \"model\", found \"adapter\"");
  expect_contains(with([](auto& b) { b.add_u32("tokenizer.ggml.bos_token_id", 288); }),
                  "tokenizer.ggml.bos_token_id: expected an id below the vocabulary size 288, found 288");
  expect_contains(with([](auto& b) { b.add_u32("llama.vocab_size", 287); }),
                  "tokenizer.ggml.tokens: expected at most llama.vocab_size = 287 tokens, found 288");
  expect_contains(with([](auto& b) { b.add_u32("llama.block_count", 65537); }),
                  "llama.block_count: expected at most 65536");
  // What real files say beside.
  EXPECT_EQ(with([](auto& b) {
              b.add_string("llama.tensor_data_layout", "Meta AI original pth")
                  .add_string("general.type", "model")
                  .add_u32("general.file_type", 2)
                  .add_f32("general.sampling.temp", 0.6f)
                  .add_string("quantize.imatrix.file", "x.dat")
                  .add_u32("llama.expert_count", 0)
                  .add_bool("llama.rope.scaling.finetuned", true);
            }),
            "no error");
}

TEST(GgufModel, KnowsMistralAndQwen) {
  const auto config_of = [](const GgufBuilder& builder) {
    const std::string bytes = builder.build();
    return open(bytes).config();
  };
  const auto mistral = config_of(make_tiny_metadata({}).add_u32("llama.attention.sliding_window", 12));
  EXPECT_EQ(mistral["architectures"].dump(), R"(["MistralForCausalLM"])");
  EXPECT_EQ(mistral["model_type"], "mistral");
  EXPECT_EQ(mistral["sliding_window"], 12);
  EXPECT_FALSE(mistral.contains("attention_bias"));

  TinyLlama tiny;
  tiny.architecture = "qwen2";
  const std::string bytes =
      make_tiny_builder(tiny).add_tensor("blk.1.attn_k.bias", {32}, 0, std::string(128, 'x')).build();
  const auto qwen2 = open(bytes);
  EXPECT_EQ(qwen2.config()["architectures"].dump(), R"(["Qwen2ForCausalLM"])");
  EXPECT_EQ(qwen2.config()["model_type"], "qwen2");
  EXPECT_FALSE(qwen2.config().contains("sliding_window"));
  EXPECT_TRUE(qwen2.contains("model.layers.1.self_attn.k_proj.bias"));
  // Rows of q and k are in Hugging Face's order already.
  const auto tensors = test_support::make_tiny_tensors(tiny);
  std::vector<float> q(tensors[2].values.size());
  qwen2.read_float("model.layers.0.self_attn.q_proj.weight", q);
  EXPECT_EQ(q, tensors[2].values);

  tiny.architecture = "qwen3";
  const std::string norms = make_tiny_metadata(tiny)
                                .add_tensor("blk.0.attn_q_norm.weight", {16}, 0, std::string(64, 'x'))
                                .add_tensor("blk.0.attn_k_norm.weight", {16}, 0, std::string(64, 'x'))
                                .add_u32("qwen3.attention.sliding_window", 7)
                                .build();
  const auto qwen3 = open(norms);
  EXPECT_EQ(qwen3.config()["model_type"], "qwen3");
  EXPECT_EQ(qwen3.config()["use_sliding_window"], true);
  EXPECT_EQ(qwen3.names(), (std::vector<std::string>{"model.layers.0.self_attn.q_norm.weight",
                                                     "model.layers.0.self_attn.k_norm.weight"}));
  expect_contains(open_error(make_tiny_metadata(tiny).add_u32("qwen3.expert_count", 8)),
                  "qwen3.expert_count: expected 0, found 8");
}

TEST(GgufModel, MapsNamesAndRefusesOthers) {
  const std::string bytes = make_tiny_builder({}).build();
  const auto names = open(bytes).names();
  EXPECT_EQ(names.size(), 20u);
  EXPECT_EQ(names[0], "model.embed_tokens.weight");
  EXPECT_EQ(names[1], "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(names[2], "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(names[5], "model.layers.0.self_attn.o_proj.weight");
  EXPECT_EQ(names[6], "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(names[18], "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(names[19], "model.norm.weight");

  for (const char* name :
       {"blk.0.attn_q_norm.weight", "blk.0.ffn_gate_exps.weight", "blk.0.attn_q", "blk.0.attn_q.scale",
        "blk..attn_q.weight", "blk.00.attn_q.weight", "blk.-1.attn_q.weight", "blk.0.attn_norm.bias", "blk.0",
        "blk.", "blk", "blk.99999999999999999999.attn_q.weight", "model.embed_tokens.weight",
        "blk.0.attn_q.weight.x"}) {
    expect_contains(open_error(make_tiny_metadata({}).add_tensor(name, {1}, 0, "abcd")),
                    std::string("tiny.gguf: tensor \"") + name +
                        "\" does not belong to a supported model of architecture \"llama\"");
  }
  expect_contains(open_error(make_tiny_metadata({}).add_tensor("blk.2.attn_norm.weight", {1}, 0, "abcd")),
                  "the model has only 2 layers");
  expect_contains(
      open_error(make_tiny_metadata({}).add_tensor("blk.0.attn_q.weight", {32, 1}, 0, std::string(128, 'x'))),
      "tensor \"blk.0.attn_q.weight\": expected 4 heads of 16 rows, found 32 rows");
  expect_contains(open_error(make_tiny_metadata({}).add_tensor("blk.0.attn_k.weight", {32, 1, 1}, 0,
                                                               std::string(128, 'x'))),
                  "expected at most 2 dimensions, found 3");
  expect_contains(
      open_error(make_tiny_metadata({}).add_tensor("blk.0.attn_k.bias", {32}, 8, std::string(34, 'x'))),
      "expected F32, F16 or BF16, found Q8_0");
}

TEST(GgufModel, InterleavedRowsAreAPermutation) {
  // Head size 6: Hugging Face's rows 0 1 2 | 3 4 5 are GGUF's 0 2 4 | 1 3 5.
  const int64_t expected[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
  for (int64_t row = 0; row < 12; ++row) EXPECT_EQ(interleaved_row(row, 6), expected[row]);
}

}  // namespace
}  // namespace atom
