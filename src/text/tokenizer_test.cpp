#include "text/tokenizer.h"

#include <thread>

#include <gtest/gtest.h>

#include "base/byte_level.h"
#include "base/error.h"
#include "base/random.h"
#include "text/bpe.h"
#include "text/json.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

using Json = nlohmann::json;

/// All 256 bytes, then a few merges, then special tokens.
Json small_tokenizer() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_level_encode(std::string(1, static_cast<char>(byte)))] = byte;
  Json merges = Json::array();
  const auto merge = [&](const std::string& left, const std::string& right) {
    vocab[left + right] = vocab.size();
    merges.push_back(left + " " + right);
  };
  merge("h", "e");
  merge("l", "l");
  merge("he", "ll");
  merge("hell", "o");
  merge("Ġ", "w");
  merge("a", "a");
  merge("aa", "aa");
  Json added = Json::array();
  for (const char* name : {"<s>", "</s>", "<|im_end|>"}) {
    added.push_back(
        {{"id", vocab.size() + added.size()}, {"content", name}, {"special", true}, {"normalized", false}});
  }
  return {{"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

std::string error_of(const Json& document) {
  try {
    Tokenizer::from_json(document, "tokenizer.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  const int32_t hello = *tokenizer.id_of("hello");
  EXPECT_EQ(tokenizer.encode("hello"), std::vector<int32_t>{hello});
  EXPECT_EQ(tokenizer.encode("hell"), std::vector<int32_t>{*tokenizer.id_of("hell")});
  EXPECT_EQ(tokenizer.encode("hello w"), (std::vector<int32_t>{hello, *tokenizer.id_of("Ġw")}));
  EXPECT_EQ(tokenizer.token_bytes(*tokenizer.id_of("Ġw")), " w");
  EXPECT_EQ(tokenizer.encode(""), std::vector<int32_t>{});
  EXPECT_EQ(tokenizer.vocab_size(), 256 + 7 + 3);
}

TEST(Tokenizer, SpecialTokensInText) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  const int32_t end = *tokenizer.id_of("<|im_end|>");
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_EQ(tokenizer.encode("a<|im_end|>"), (std::vector<int32_t>{'a', end}));
  EXPECT_EQ(tokenizer.encode("<|im_end|>", {.parse_special = false}).size(), 10u);
  const std::vector<int32_t> ids{'a', end, 'b'};
  EXPECT_EQ(tokenizer.decode(ids), "a<|im_end|>b");
  EXPECT_EQ(tokenizer.decode(ids, true), "ab");
}

TEST(Tokenizer, BytesThatAreNoText) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xE2\x82z\xFF")), "a\xEF\xBF\xBDz\xEF\xBF\xBD");
  const std::vector<int32_t> broken{0xE2, 0x82, 'x', -1, 1 << 30};
  EXPECT_EQ(tokenizer.decode(broken), "\xEF\xBF\xBDx");
}

TEST(Tokenizer, PostProcessorAddsTokens) {
  Json document = small_tokenizer();
  const int id = document["added_tokens"][0]["id"];
  document["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", Json::array()},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {id}}, {"tokens", {"<s>"}}}}}}};
  const Tokenizer tokenizer = Tokenizer::from_json(document, "test");
  EXPECT_EQ(tokenizer.encode("a"), (std::vector<int32_t>{id, 'a'}));
  EXPECT_EQ(tokenizer.encode("a", {.add_special_tokens = false}), std::vector<int32_t>{'a'});
}

TEST(Tokenizer, RoundTripOfRandomText) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (uint64_t i = random.below(60); i > 0; --i)
      bytes += static_cast<char>(random.below(3) ? random.below(128) : random.below(256));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), lossy_utf8(bytes));
  }
}

TEST(Tokenizer, ManyThreadsAtOnce) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  std::string text;
  for (int i = 0; i < 500; ++i) text += "hello w" + std::to_string(i % 50) + " aaaaa ";
  const std::vector<int32_t> expected = tokenizer.encode(text);
  std::vector<std::vector<int32_t>> results(8);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = tokenizer.encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, AMegabyteInOneWord) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer(), "test");
  const std::vector<int32_t> ids = tokenizer.encode(std::string((1 << 20) + 3, 'a'));
  EXPECT_EQ(ids.size(), (1u << 18) + 2);
  EXPECT_EQ(ids.front(), *tokenizer.id_of("aaaa"));
}

TEST(Tokenizer, ErrorsNameTheField) {
  struct Case {
    const char* pointer;
    Json value;
    const char* expected;
  };
  const Case cases[] = {
      {"/normalizer", {{"type", "Nmt"}}, "normalizer.type"},
      {"/normalizer", {{"type", "Prepend"}, {"prepend", std::string(257, 'a')}}, "normalizer.prepend"},
      {"/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "AA=="}}, "precompiled_charsmap"},
      {"/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "A"}}, "expected base64"},
      {"/normalizer",
       {{"type", "Precompiled"}, {"precompiled_charsmap", "BAAAAAAAAAA="}, {"kept", {"a"}}},
       "normalizer.search"},
      {"/normalizer",
       {{"type", "Precompiled"},
        {"precompiled_charsmap", "BAAAAAAAAAA="},
        {"search", "longest"},
        {"kept", {""}}},
       "normalizer.kept[0]"},
      {"/normalizer",
       {{"type", "Precompiled"}, {"precompiled_charsmap", "BAAAAAAAAAA="}, {"remove_extra_spaces", true}},
       "normalizer.kept"},
      {"/pre_tokenizer", {{"type", "UnicodeScripts"}}, "pre_tokenizer.type"},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "ab"}}, "pre_tokenizer.replacement"},
      {"/pre_tokenizer/unknown_option", true, "unknown_option"},
      {"/pre_tokenizer/add_prefix_space", "yes", "add_prefix_space"},
      {"/decoder", {{"type", "WordPiece"}}, "decoder.type"},
      {"/decoder", {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", -1}}, "decoder.stop"},
      {"/decoder",
       {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}, {"search", "marks"}},
       "decoder.search"},
      {"/post_processor", {{"type", "Other"}}, "post_processor.type"},
      {"/post_processor", {{"type", "BertProcessing"}, {"cls", {"a", 999}}, {"sep", {"a", 1}}}, "cls[1]"},
      {"/truncation", {{"max_length", 5}}, "truncation"},
      {"/padding", {{"strategy", {{"Fixed", 8}}}}, "padding.strategy"},
      {"/model/type", "Unigram", "model.type"},
      {"/model/dropout", 0.1, "model.dropout"},
      {"/model/merge_ranks", {1}, "model.merge_ranks"},
      {"/model/vocab", Json::array(), "model.vocab"},
      {"/model/vocab/x", 7, "model.vocab"},
      {"/model/vocab/x", -1, "model.vocab"},
      {"/model/vocab/x", 1u << 30, "model.vocab"},
      {"/model/vocab/x", 1.5, "model.vocab"},
      {"/model/merges/0", "three words here", "model.merges[0]"},
      {"/model/merges/0", {"h", "zz"}, "model.merges[0]"},
      {"/model/merges/0", {"h", "h"}, "model.merges[0]"},
      {"/added_tokens/0/id", 999, "added_tokens[0].id"},
      {"/added_tokens/1/content", "", "added_tokens[1].content"},
      {"/added_tokens/0/search", "raw", "added_tokens[0].search"},
      {"/new_section", 1, "new_section"},
  };
  ASSERT_EQ(error_of(small_tokenizer()), "");
  for (const Case& test : cases) {
    Json document = small_tokenizer();
    document[Json::json_pointer(test.pointer)] = test.value;
    const std::string error = error_of(document);
    EXPECT_NE(error.find(test.expected), std::string::npos) << test.pointer << ": \"" << error << "\"";
    EXPECT_EQ(error.rfind("tokenizer.json: ", 0), 0u) << error;
  }
  EXPECT_NE(error_of(Json::array()), "");
  EXPECT_NE(error_of(Json("text")), "");
}

TEST(Bpe, HeapAndScanAgree) {
  // Merges over two letters, ranked at random; the same word alone (scan) and as the begin of a long one
  // (heap).
  Random random(3);
  for (int round = 0; round < 50; ++round) {
    Bpe::Config config;
    config.byte_ids.fill(-1);
    std::vector<std::string> tokens;
    for (const char c : {'a', 'b', '|'}) {
      config.byte_ids[static_cast<uint8_t>(c)] = static_cast<int32_t>(tokens.size());
      tokens.push_back(std::string(1, c));
    }
    for (int i = 0; i < 12; ++i) {
      const auto left = static_cast<size_t>(random.below(tokens.size()));
      const auto right = static_cast<size_t>(random.below(tokens.size()));
      if (tokens[left] == "|" || tokens[right] == "|") continue;
      const std::string merged = tokens[left] + tokens[right];
      auto known = std::find(tokens.begin(), tokens.end(), merged);
      if (known == tokens.end()) known = tokens.insert(tokens.end(), merged);
      config.merges.push_back({static_cast<int32_t>(left), static_cast<int32_t>(right),
                               static_cast<int32_t>(known - tokens.begin()), i});
    }
    const Bpe bpe(config);
    Bpe::Scratch scratch;
    for (int word_round = 0; word_round < 20; ++word_round) {
      std::string word;
      for (int i = 0; i < 20; ++i) word += random.below(2) ? 'a' : 'b';
      std::vector<int32_t> alone;
      bpe.encode(word, scratch, alone);
      // The bar merges with nothing, so the parts of a long word merge each for itself.
      std::vector<int32_t> joined;
      bpe.encode(word + "|" + word, scratch, joined);
      std::vector<int32_t> expected = alone;
      expected.push_back(2);
      expected.insert(expected.end(), alone.begin(), alone.end());
      EXPECT_EQ(joined, expected) << word;
    }
  }
}

TEST(PreTokenizer, ScannerIsGpt2sPattern) {
  const SplitStep pattern{
      Regex(translate_oniguruma(
                R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "pattern"),
            "pattern"),
      SplitBehavior::kIsolated, false};
  const ByteLevelStep scanner{false, true, false};
  const char* parts[] = {" ",
                         "  ",
                         "'",
                         "s",
                         "re",
                         "l",
                         "a",
                         "Z",
                         "1",
                         "\xC2\xB2",
                         "!",
                         "\n",
                         "\t",
                         "\xC2\xA0",
                         "\xE3\x80\x80",
                         "\xC3\xA9",
                         "\xCC\x81",
                         "\xF0\x9F\x98\x80",
                         "\xE1\xA0\x8E",
                         "'t",
                         "'ve "};
  Random random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (uint64_t i = 1 + random.below(12); i > 0; --i) text += parts[random.below(std::size(parts))];
    Pieces expected;
    Pieces got;
    pattern.apply(text, expected);
    scanner.apply(text, got);
    EXPECT_EQ(got.list, expected.list) << Json(text).dump();
  }
}

TEST(Regex, DialectIsTranslated) {
  EXPECT_EQ(translate_oniguruma("a{,3}", "f"), "a{0,3}");
  EXPECT_EQ(translate_oniguruma("(ab){2,3}+c", "f"), "(?:(ab){2,3})+c");
  EXPECT_EQ(translate_oniguruma("{x", "f"), "\\{x");
  EXPECT_EQ(translate_oniguruma("\\v\\u00e9", "f"), "\\x{B}\\x{E9}");
  for (const char* pattern : {"[a&&b]", "[[:alpha:]]", "\\1", "(?<n>a)", "[\\P{L}]", "a**", "(", ")", "[",
                              "\\", "\\xE4", "(?m:a)", "*", "a{2}?", "\\p{}", "\\pL"}) {
    EXPECT_THROW(translate_oniguruma(pattern, "field"), Error) << pattern;
  }
}

TEST(Regex, FindsMatchesFarApart) {
  const Regex regex("b", "pattern");
  for (const char* filler : {"a", "\xE4\xB8\x80"}) {
    std::string text;
    while (text.size() < 70'000) text += filler;
    const size_t first = text.size();
    text += 'b' + text + 'b';
    std::vector<Regex::Match> matches;
    regex.find_all(text, matches);
    ASSERT_EQ(matches.size(), 2u);
    EXPECT_EQ(matches[0].begin, first);
    EXPECT_EQ(matches[1].end, text.size());
  }
}

TEST(Regex, RunawayPatternIsStopped) {
  const Regex regex("(a|a)+$", "pattern");
  std::vector<Regex::Match> matches;
  EXPECT_THROW(regex.find_all(std::string(60, 'a') + "c", matches), Error);
  // Each place looks ahead to the end of the text.
  const Regex ahead(translate_oniguruma("\\d{1,3}(?=(?:\\d{3})*\\b)", "pattern"), "pattern");
  EXPECT_THROW(ahead.find_all(std::string(100'000, '1'), matches), Error);
  const Regex never("(?=(?:1{3})+y)1", "pattern");
  EXPECT_THROW(never.find_all(std::string(100'000, '1') + "zy", matches), Error);
}

TEST(Json, DepthAndSyntax) {
  EXPECT_EQ(parse_json("{\"a\": [1, \"[[[\"]}", "f")["a"][0], 1);
  EXPECT_NO_THROW(parse_json(std::string(200, '[') + std::string(200, ']'), "f"));
  for (const std::string& text : {std::string(201, '['), std::string(1'000'000, '{'), std::string("{"),
                                  std::string(""), std::string("1 2"), std::string("\"\xFF\"")}) {
    EXPECT_THROW(parse_json(text, "file.json"), Error);
  }
}

}  // namespace
}  // namespace atom::text
