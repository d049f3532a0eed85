#include <gtest/gtest.h>

#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/json.h"
#include "text/oracle_testing.h"
#include "text/tokenizer.h"

namespace atom::text {
namespace {

using Json = nlohmann::json;

std::string around(const std::string& text, size_t center) {
  const size_t begin = center > 40 ? center - 40 : 0;
  return Json(sanitize_utf8(text.substr(begin, 80))).dump();
}

/// Where two token lists part, as text.
std::string first_difference(const Tokenizer& tokenizer, const std::string& text,
                             const std::vector<int32_t>& got, const std::vector<int32_t>& expected) {
  size_t i = 0;
  size_t bytes = 0;
  while (i < got.size() && i < expected.size() && got[i] == expected[i])
    bytes += tokenizer.token_bytes(got[i++]).size();
  const auto id = [&](const std::vector<int32_t>& ids) { return i < ids.size() ? ids[i] : -1; };
  return fmt::format("token {}: {} ({}) instead of {} ({}), near {}", i, id(got),
                     tokenizer.token_text(id(got)), id(expected), tokenizer.token_text(id(expected)),
                     around(text, bytes));
}

/// Compares one tokenizer with what the oracle wrote; returns the bytes of text compared.
size_t compare(const std::filesystem::path& folder, const std::string& name) {
  const std::filesystem::path path = folder / (name + ".json");
  const Tokenizer tokenizer = Tokenizer::from_json(parse_json(read_file(path), name), name);
  std::ifstream cases(folder / (name + ".cases.jsonl"));
  std::string line;
  size_t bytes = 0;
  int count = 0;
  while (std::getline(cases, line)) {
    const Json expected = Json::parse(line);
    const std::string text = expected["text"];
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    const std::vector<int32_t> got = tokenizer.encode(
        text, {expected["add_special_tokens"].get<bool>(), expected["parse_special"].get<bool>()});
    EXPECT_TRUE(got == ids) << name << ", case " << count << ": "
                            << first_difference(tokenizer, text, got, ids);
    EXPECT_TRUE(tokenizer.decode(ids) == expected["decoded"].get<std::string>())
        << name << ", case " << count << ": " << around(tokenizer.decode(ids), 0) << " instead of "
        << around(expected["decoded"], 0);
    EXPECT_TRUE(tokenizer.decode(ids, true) == expected["decoded_skip"].get<std::string>()) << name;
    Detokenizer incremental(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += incremental.push(id);
    streamed += incremental.finish();
    EXPECT_TRUE(streamed == expected["decoded"].get<std::string>()) << name << ", case " << count;
    bytes += text.size();
    ++count;
  }
  EXPECT_GT(count, 200) << name;
  return bytes;
}

TEST(TokenizerOracle, EveryFeatureOfTheFormat) {
  if (environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir folder;
  ASSERT_TRUE(run_oracle("text_tokenizer.py", "--out '" + folder.path().string() + "'"));
  int tokenizers = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".json") continue;
    compare(folder.path(), entry.path().stem().string());
    ++tokenizers;
  }
  EXPECT_GE(tokenizers, 65);
}

TEST(TokenizerOracle, SmolLm2OnAMegabyteOfMixedText) {
  if (environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  if (environment("ATOM_TEST_MODEL").empty()) GTEST_SKIP() << "ATOM_TEST_MODEL is not set";
  const TempDir folder;
  std::string arguments =
      "--out '" + folder.path().string() + "' --model '" + environment("ATOM_TEST_MODEL") + "'";
  const std::filesystem::path wikitext =
      std::filesystem::path(environment("ATOM_TEST_DATA")) / "wikitext2/test.txt";
  const bool have_wikitext = !environment("ATOM_TEST_DATA").empty() && std::filesystem::exists(wikitext);
  if (have_wikitext) arguments += " --text '" + wikitext.string() + "'";
  ASSERT_TRUE(run_oracle("text_tokenizer.py", arguments));
  EXPECT_GE(compare(folder.path(), "smollm"), size_t{1} << 20);
  if (have_wikitext) {
    const Tokenizer tokenizer =
        Tokenizer::from_json(parse_json(read_file(folder.path() / "smollm.json"), "smollm"), "smollm");
    EXPECT_EQ(tokenizer.encode(read_file(wikitext)).size(), 304978u);
  }
}

}  // namespace
}  // namespace atom::text
