#include "checkpoint/gguf_tokenizer.h"

#include <functional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/json.h"
#include "checkpoint/testing/errors.h"
#include "checkpoint/testing/oracle.h"
#include "checkpoint/testing/tiny_gguf.h"

namespace atom {
namespace {

using nlohmann::ordered_json;
using test_support::expect_contains;
using test_support::GgufBuilder;
using test_support::make_tiny_metadata;
using test_support::run_oracle;
using test_support::TempDir;
using test_support::test_environment;

ordered_json convert(const GgufBuilder& builder,
                     ordered_json (*make)(const GgufFile&) = make_tokenizer_json) {
  const std::string bytes = builder.build();
  return make(GgufFile(std::as_bytes(std::span(bytes)), "tiny.gguf"));
}

std::string error_of(const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder builder = make_tiny_metadata({});
  change(builder);
  try {
    convert(builder);
    convert(builder, make_tokenizer_config);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(GgufTokenizer, MakesDocument) {
  const ordered_json document = convert(make_tiny_metadata({}));
  EXPECT_EQ(document["pre_tokenizer"].dump(),
            R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)"
            R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]})");
  EXPECT_EQ(document["decoder"]["type"], "ByteLevel");
  EXPECT_TRUE(document["post_processor"].is_null());
  ASSERT_EQ(document["added_tokens"].size(), 3u);
  EXPECT_EQ(
      document["added_tokens"][1].dump(),
      R"({"id":1,"content":"<|im_start|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
      R"("special":true})");
  const ordered_json& model = document["model"];
  EXPECT_EQ(model["type"], "BPE");
  EXPECT_EQ(model["vocab"].size(), 288u);
  EXPECT_EQ(model["vocab"]["Ġthe"], 263);
  EXPECT_EQ(model["merges"][4], "Ġt he");
  EXPECT_EQ(model["ignore_merges"], false);
}

TEST(GgufTokenizer, MakesConfig) {
  const ordered_json config = convert(make_tiny_metadata({}), make_tokenizer_config);
  EXPECT_EQ(config["bos_token"], "<|im_start|>");
  EXPECT_EQ(config["eos_token"], "<|im_end|>");
  EXPECT_EQ(config["unk_token"], "<|endoftext|>");
  EXPECT_EQ(config["model_max_length"], 256);
  EXPECT_EQ(config["add_bos_token"], false);
  expect_contains(config["chat_template"], "{% for message in messages %}");
}

TEST(GgufTokenizer, RefusesBadTables) {
  const auto set = [](const char* key, std::vector<std::string> values) {
    return error_of([&](GgufBuilder& b) { b.add_strings(key, values); });
  };
  expect_contains(
      error_of([](auto& b) { b.add_string("tokenizer.ggml.model", "bert"); }),
      "tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE) or \"llama\" (SentencePiece BPE), "
      "found \"bert\"");
  expect_contains(error_of([](auto& b) { b.add_string("tokenizer.ggml.model", "llama"); }),
                  "\"tokenizer.ggml.scores\" is missing");
  expect_contains(error_of([](auto& b) { b.add_string("tokenizer.ggml.pre", "kimi-k2"); }),
                  "found \"kimi-k2\", which is not supported");
  expect_contains(error_of([](auto& b) { b.remove("tokenizer.ggml.pre"); }),
                  "metadata key \"tokenizer.ggml.pre\" is missing");
  expect_contains(error_of([](auto& b) { b.remove("tokenizer.ggml.tokens"); }),
                  "\"tokenizer.ggml.tokens\" is missing");
  expect_contains(error_of([](auto& b) { b.remove("tokenizer.ggml.merges"); }),
                  "\"tokenizer.ggml.merges\" is missing");
  expect_contains(set("tokenizer.ggml.tokens", {}), "expected 1 to 2^31 - 1 tokens, found 0");
  expect_contains(set("tokenizer.ggml.tokens", {"a", "\xC3"}), "token 1 is not valid UTF-8");
  expect_contains(set("tokenizer.ggml.tokens", {"a", "b", "a"}), "tokens 0 and 2 are both \"a\"");
  expect_contains(set("tokenizer.ggml.tokens", {"a"}),
                  "token_type: expected 1 entries, one a token, found 288");
  expect_contains(set("tokenizer.ggml.merges", {"he"}),
                  "expected merge 0 to be two tokens with a space between, found \"he\"");
  expect_contains(set("tokenizer.ggml.merges", {"h e", "a b c"}), "expected merge 1 to be two tokens");
  expect_contains(set("tokenizer.ggml.merges", {"x y"}),
                  "merge 0 (\"x y\") needs the token \"xy\", which does not exist");
  expect_contains(set("tokenizer.ggml.token_type", std::vector<std::string>(288)),
                  "expected an array of integers, found string");
  expect_contains(error_of([](auto& b) { b.add_u32("tokenizer.ggml.eos_token_id", 288); }),
                  "eos_token_id: expected an id below 288");
  expect_contains(error_of([](auto& b) {
                    b.add_bool("tokenizer.ggml.add_bos_token", true).remove("tokenizer.ggml.bos_token_id");
                  }),
                  "\"tokenizer.ggml.bos_token_id\" is missing, but the tokenizer adds that token");
  expect_contains(error_of([](auto& b) { b.add_string("tokenizer.chat_template", "\xFF"); }),
                  "not valid UTF-8");
}

TEST(GgufTokenizer, EveryPreTokenizerLoadsInPackageTokenizers) {
  if (test_environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir dir;
  const auto text = dir.write("text", "the 1234 in\xC3\xA9r...on\n\n a  Thing's <|im_end|>a");
  const auto ids = [&](const char* pre, bool bos) {
    GgufBuilder builder = make_tiny_metadata({});
    builder.add_string("tokenizer.ggml.pre", pre).add_bool("tokenizer.ggml.add_bos_token", bos);
    builder.add_bool("tokenizer.ggml.add_eos_token", bos);
    const auto file = dir.write("tokenizer.json", convert(builder).dump());
    return parse_json(run_oracle("checkpoint_tokenizer.py", {file.string(), text.string(), "--special"}),
                      "oracle");
  };
  const ordered_json plain = ids("smollm", false);
  EXPECT_GT(plain.size(), 20u);
  // No merge of the tiny vocabulary crosses a border that the pre-tokenizers disagree about.
  for (const char* pre :
       {"gpt-2",        "default",        "llama-bpe",   "dbrx",     "qwen2",  "qwen35",    "stablelm2",
        "deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken",   "gpt-4o", "tiny_aya",  "bailingmoe",
        "seed-coder",   "bloom",          "viking",      "superbpe", "falcon", "starcoder", "command-r"}) {
    EXPECT_EQ(ids(pre, false), plain) << pre;
  }
  ordered_json with_both = plain;
  with_both.insert(with_both.begin(), 1);
  with_both.push_back(2);
  EXPECT_EQ(ids("smollm", true), with_both);
}

TEST(GgufTokenizer, RealModelGivesTheRightNumberOfTokens) {
  const std::string model = test_environment("ATOM_TEST_MODEL");
  const std::string data = test_environment("ATOM_TEST_DATA");
  if (model.empty() || data.empty() || test_environment("ATOM_TEST_PYTHON").empty()) {
    GTEST_SKIP() << "ATOM_TEST_MODEL, ATOM_TEST_DATA or ATOM_TEST_PYTHON is not set";
  }
  const TempDir dir;
  const auto file = dir.write("tokenizer.json", Checkpoint::open(model)->tokenizer_json().dump());
  const std::string text = data + "/wikitext2/test.txt";
  EXPECT_EQ(parse_json(run_oracle("checkpoint_tokenizer.py", {file.string(), text}), "oracle").size(),
            304'978u);
}

}  // namespace
}  // namespace atom
