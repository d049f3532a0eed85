#include <fstream>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/testing/temp_dir.h"
#include "checkpoint/directory_tokenizer.h"
#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/sentencepiece_model.h"
#include "checkpoint/testing/oracle.h"
#include "checkpoint/testing/tiny_gguf.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

// Tokenizers from files other than tokenizer.json, from the file to the ids.

namespace atom {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
using test_support::GgufBuilder;
using test_support::run_oracle;
using test_support::TempDir;
using test_support::test_environment;
using text::Tokenizer;

/// Compares a tokenizer with what the oracle wrote, with `all` also what it decodes from ids that no text
/// has; returns the bytes of text compared.
size_t compare(const Tokenizer& tokenizer, const fs::path& cases, const std::string& name, bool all = true) {
  std::ifstream in(cases);
  std::string line;
  size_t bytes = 0;
  while (std::getline(in, line)) {
    const json expected = json::parse(line);
    if (!all && !expected.contains("text")) continue;
    const std::string text = expected.value("text", "");
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    const std::string about = name + ": " + line.substr(0, 200);
    const auto got = tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
    EXPECT_TRUE(got == ids || !expected.contains("text")) << about;
    EXPECT_TRUE(tokenizer.decode(ids) == expected["decoded"].get<std::string>()) << about;
    bytes += text.size();
  }
  return bytes;
}

Tokenizer from_document(const ordered_json& document, const std::string& name) {
  return Tokenizer::from_json(json(document), name);
}

/// The model as it goes into GGUF.
std::string as_gguf(const fs::path& model_file) {
  const SentencePieceModel read = read_sentencepiece_model(read_text_file(model_file), "model");
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::string scores =
      GgufBuilder::bytes_of(uint32_t{6}) + GgufBuilder::bytes_of<uint64_t>(read.model.pieces.size());
  for (const Piece& piece : read.model.pieces) {
    tokens.push_back(piece.text);
    types.push_back(static_cast<int32_t>(piece.type));
    scores += GgufBuilder::bytes_of(piece.score);
  }
  GgufBuilder builder;
  builder.add_string("tokenizer.ggml.model", "llama")
      .add_string("tokenizer.ggml.pre", "default")
      .add_strings("tokenizer.ggml.tokens", tokens)
      .add_ints("tokenizer.ggml.token_type", types)
      .add("tokenizer.ggml.scores", 9, scores)
      .add_bool("tokenizer.ggml.add_space_prefix", read.model.add_dummy_prefix);
  return builder.build();
}

TEST(TokenizerFiles, EqualSentencePieceAndTiktoken) {
  const std::string python = test_environment("ATOM_TEST_PYTHON");
  if (python.empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  if (std::system(("'" + python + "' -c 'import sentencepiece, tiktoken' 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << "sentencepiece or tiktoken is not installed";
  const TempDir dir;
  run_oracle("checkpoint_sentencepiece.py", {"--out", dir.path().string()});
  int tokenizers = 0;
  for (const auto& entry : fs::directory_iterator(dir.path())) {
    if (!entry.is_directory()) continue;
    const std::string name = entry.path().filename().string();
    const fs::path cases = dir.path() / (name + ".cases.jsonl");
    ordered_json config = ordered_json::object();
    const Tokenizer tokenizer = from_document(*read_directory_tokenizer(entry.path(), config), name);
    EXPECT_GT(compare(tokenizer, cases, name), 60'000u);
    EXPECT_EQ(config["bos_token"], "<s>") << name;
    EXPECT_EQ(tokenizer.encode("a").front(), *tokenizer.id_of("<s>")) << name;
    EXPECT_EQ(tokenizer.encode("a</s>").back(), *tokenizer.id_of("</s>")) << name;
    ++tokenizers;
    // What GGUF has room for.
    if (name != "plain" && name != "no_prefix" && name != "user_defined" && !name.ends_with(".v3")) continue;
    const std::string bytes = as_gguf(entry.path() / "tokenizer.model");
    const GgufFile file(std::as_bytes(std::span(bytes)), name + ".gguf");
    compare(from_document(make_tokenizer_json(file), name), cases, name + ".gguf", false);
    EXPECT_EQ(make_tokenizer_config(file)["eos_token"], "</s>");
  }
  EXPECT_GE(tokenizers, 12);
}

TEST(TokenizerFiles, EveryPreTokenizerOfGguf) {
  const std::string text = "the 1234 in\xC3\xA9r...on\n\n a  Thing's <|im_end|>a";
  const auto ids = [&](const char* pre) {
    GgufBuilder builder = test_support::make_tiny_metadata({});
    builder.add_string("tokenizer.ggml.pre", pre);
    const std::string bytes = builder.build();
    const GgufFile file(std::as_bytes(std::span(bytes)), "tiny.gguf");
    return from_document(make_tokenizer_json(file), pre).encode(text, {.add_special_tokens = false});
  };
  const std::vector<int32_t> plain = ids("smollm");
  EXPECT_GT(plain.size(), 20u);
  // No merge of the tiny vocabulary crosses a border that the pre-tokenizers disagree about.
  for (const char* pre :
       {"gpt-2",          "default",     "llama-bpe", "dbrx",   "qwen2",    "qwen35",     "stablelm2",
        "deepseek-llm",   "deepseek-v3", "tekken",    "gpt-4o", "tiny_aya", "bailingmoe", "seed-coder",
        "deepseek-coder", "bloom",       "viking",    "falcon", "superbpe", "starcoder"}) {
    EXPECT_EQ(ids(pre), plain) << pre;
  }
}

/// A message field of protobuf's wire format.
std::string field(int number, const std::string& content) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(content.size()) + content;
}

std::string piece(const std::string& text, float score, int type = 1) {
  return field(1, field(1, text) + "\x15" + GgufBuilder::bytes_of(score) + "\x18" + static_cast<char>(type));
}

/// A model of type BPE: <unk>, <s>, </s>, then a few pieces.
std::string small_model(const std::string& more = "") {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("ab", -1) + piece("ba", -1) +
         piece("a", -5) + piece("b", -6) + piece("\xE2\x96\x81", -7) + more +
         field(2, std::string("\x18\x02", 2)) + field(3, std::string("\x18\x01\x20\x00", 4));
}

TEST(TokenizerFiles, EqualScoresMergeFromTheLeft) {
  const TempDir dir;
  dir.write("tokenizer.model", small_model());
  ordered_json config = ordered_json::object();
  const Tokenizer tokenizer = from_document(*read_directory_tokenizer(dir.path(), config), "model");
  EXPECT_EQ(tokenizer.encode("abab", {.add_special_tokens = false}), (std::vector<int32_t>{7, 3, 3}));
  EXPECT_EQ(tokenizer.encode("babab", {.add_special_tokens = false}), (std::vector<int32_t>{7, 4, 4, 6}));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 7, 3, 0, 3}, false), "<s> ab \xE2\x81\x87 ab");
}

TEST(TokenizerFiles, TokensBesideAModel) {
  const TempDir dir;
  dir.write("tokenizer.model", small_model());
  dir.write("added_tokens.json", R"({"<x>": 20})");
  ordered_json config = {
      {"add_bos_token", false},
      {"add_eos_token", true},
      {"legacy", false},
      {"added_tokens_decoder",
       {{"1", {{"content", "<s>"}, {"special", true}}},
        {"30", {{"content", "<y>"}, {"special", false}, {"normalized", false}, {"rstrip", true}}}}}};
  const Tokenizer tokenizer = from_document(*read_directory_tokenizer(dir.path(), config), "model");
  EXPECT_EQ(tokenizer.encode("a<x>b<y>  b"), (std::vector<int32_t>{7, 5, 20, 6, 30, 6, 2}));
  EXPECT_TRUE(tokenizer.is_special(20));
  EXPECT_FALSE(tokenizer.is_special(30));

  ordered_json bad = {{"added_tokens_decoder", {{"3", {{"content", "<y>"}}}}}};
  EXPECT_THROW(read_directory_tokenizer(dir.path(), bad), Error);
  dir.write("b.model.v2", small_model());
  ordered_json empty = ordered_json::object();
  EXPECT_NO_THROW(read_directory_tokenizer(dir.path(), empty));
  fs::rename(dir.path() / "tokenizer.model", dir.path() / "a.model");
  EXPECT_THROW(read_directory_tokenizer(dir.path(), empty), Error);
}

std::string error_of(const std::string& model) {
  try {
    make_piece_tokenizer(read_sentencepiece_model(model, "tokenizer.model").model);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(TokenizerFiles, MalformedModelsAreRefused) {
  const std::string whole = small_model();
  EXPECT_EQ(error_of(whole), "no error");
  // Wherever it is cut between fields, the trainer's settings at its end are missing; elsewhere a field is
  // cut.
  for (size_t size = 0; size < whole.size() - 6; ++size)
    EXPECT_EQ(error_of(whole.substr(0, size)).rfind("tokenizer.model: ", 0), 0u) << size;
  const std::pair<std::string, const char*> cases[] = {
      {piece("ab", -1), "tokens 3 and 8 are both \"ab\""},
      {piece("x", std::nanf("")), "the score of token 8 is not a number"},
      {piece("\xFF", 0), "token 8 is not valid UTF-8"},
      {piece("", 0), "piece 8 is empty"},
      {piece("x", 0, 7), "piece 8: expected a type from 1 to 6, found 7"},
      {field(2, std::string("\x18\x01", 2)), "trainer_spec.model_type: expected BPE, found UNIGRAM"},
      {field(2, std::string("\x18\x02\xC0\x01\x01", 5)), "treat_whitespace_as_suffix"},
      {field(3, std::string("\x28\x00", 2)), "escape_whitespaces"},
      {field(5, field(2, "abc")), "denormalizer_spec"},
      {field(3, std::string("\x15"
                            "abcd",
                            5)),
       "wire type"},
      {"\x0B", "wire type 3"},
      {std::string("\x00\x00", 2), "field number 0"},
      {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "more than 64 bits"},
      {"\x0A\xFF\xFF\xFF\xFF\x0F", "truncated or corrupt: 4294967295 bytes wanted"},
      {field(1,
             "\x0A\x7F"
             "a"),
       "truncated or corrupt: 127 bytes wanted"},
  };
  for (const auto& [more, expected] : cases)
    EXPECT_NE(error_of(small_model(more)).find(expected), std::string::npos)
        << expected << ": " << error_of(small_model(more));
}

TEST(TokenizerFiles, MalformedTekkenIsRefused) {
  const auto error = [](const std::string& pointer, const ordered_json& value) -> std::string {
    const TempDir dir;
    ordered_json tekken = {
        {"config", {{"pattern", "a+"}, {"default_vocab_size", 4}, {"default_num_special_tokens", 2}}},
        {"vocab", {{{"rank", 0}, {"token_bytes", "YQ=="}}, {{"rank", 1}, {"token_bytes", "Yg=="}}}}};
    tekken[ordered_json::json_pointer(pointer)] = value;
    dir.write("tekken.json", tekken.dump());
    ordered_json config = ordered_json::object();
    try {
      read_directory_tokenizer(dir.path(), config);
    } catch (const Error& caught) {
      return caught.what();
    }
    return "no error";
  };
  EXPECT_EQ(error("/version", 1), "no error");
  const std::tuple<const char*, ordered_json, const char*> cases[] = {
      {"/config/pattern", 1, "config.pattern"},
      {"/config/default_vocab_size", 5, "vocab: expected an array of at least 3"},
      {"/config/default_vocab_size", 1u << 31, "default_vocab_size: expected a number"},
      {"/config/default_num_special_tokens", 5, "expected at most 4"},
      {"/vocab/1/rank", 0, "vocab[1].rank"},
      {"/vocab/1/token_bytes", "YQ==", "comes twice"},
      {"/vocab/1/token_bytes", "Y", "base64"},
      {"/vocab/1/token_bytes", "", "base64"},
      {"/special_tokens", {{{"rank", 1}, {"token_str", "x"}}}, "special_tokens[0].rank"},
      {"/special_tokens", {{{"rank", 0}, {"token_str", "a"}}}, "is a special token too"},
  };
  for (const auto& [pointer, value, expected] : cases)
    EXPECT_NE(error(pointer, value).find(expected), std::string::npos)
        << pointer << ": " << error(pointer, value);
}

}  // namespace
}  // namespace atom
