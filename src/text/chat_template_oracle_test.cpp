#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/oracle_testing.h"

namespace atom::text {
namespace {

using Json = nlohmann::ordered_json;

struct Count {
  int rendered = 0;
  int refused = 0;
  int unsupported = 0;
};

/// What came of a run: text, or the error's message.
struct Result {
  std::string text;
  std::string error;
};

Result run(const std::optional<ChatTemplate>& chat_template, const std::string& parse_error,
           const Json& run) {
  if (!chat_template) return {"", parse_error};
  try {
    return {
        chat_template->render(run["messages"], run["add_generation_prompt"].get<bool>(), run["variables"]),
        ""};
  } catch (const Error& error) {
    return {"", error.what()};
  }
}

TEST(ChatTemplateOracle, RendersWhatJinja2Renders) {
  if (environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir folder;
  const std::filesystem::path path = folder.path() / "cases.jsonl";
  std::string arguments = "--out '" + path.string() + "' " + environment("ATOM_TEST_TEMPLATE_OPTIONS");
  if (!environment("ATOM_TEST_MODEL").empty())
    arguments += " --model '" + environment("ATOM_TEST_MODEL") + "'";
  if (!environment("ATOM_TEST_TEMPLATES").empty())
    arguments += " --templates '" + environment("ATOM_TEST_TEMPLATES") + "'";
  ASSERT_TRUE(run_oracle("text_template.py", arguments));

  std::ifstream cases(path);
  std::string line;
  std::map<std::string, Count> counts;
  std::string name;
  std::string source;
  std::optional<ChatTemplate> chat_template;
  std::string parse_error;
  while (std::getline(cases, line)) {
    const Json test = Json::parse(line);
    if (test.contains("template")) {
      name = test["name"];
      source = test["template"];
      chat_template.reset();
      try {
        chat_template.emplace(source, name);
      } catch (const Error& error) {
        parse_error = error.what();
      }
      continue;
    }
    const Result got = run(chat_template, parse_error, test);
    Count& count = counts[name];
    const std::string shown = source.size() < 1000 ? source : name + " " + test.dump();
    if (test["expected"].is_null()) {
      ++count.refused;
      EXPECT_NE(got.error, "") << shown << "\nrendered \"" << got.text << "\" where jinja2 fails";
    } else if (got.error.find("supported") != std::string::npos) {
      // No wrong result; but models' templates must not meet one, and others rarely.
      ++count.unsupported;
      EXPECT_EQ(name, "random") << shown << "\n" << got.error;
    } else {
      ++count.rendered;
      EXPECT_EQ(got.error, "") << shown << "\nexpected " << test["expected"].dump();
      if (got.error.empty()) {
        EXPECT_EQ(got.text, test["expected"].get<std::string>()) << shown;
      }
    }
  }
  for (const auto& [key, count] : counts) {
    fmt::print("{}: {} rendered, {} refused by both, {} not supported\n", key, count.rendered, count.refused,
               count.unsupported);
  }
  for (const char* family :
       {"chatml", "deepseek", "gemma2", "hermes", "llama2", "llama31", "mistral v1", "mistral v3",
        "mistral nemo", "mixtral", "phi3", "qwen2.5", "qwen3", "smollm2"}) {
    EXPECT_EQ(counts[family].rendered + counts[family].refused, 200) << family;
    EXPECT_GE(counts[family].rendered, 60) << family;
  }
  EXPECT_GE(counts["expression"].rendered, 300);
  EXPECT_GE(counts["statement"].rendered, 35);
  EXPECT_GE(counts["statement"].refused, 15);
  EXPECT_GE(counts["random"].rendered, 700);
  EXPECT_LE(counts["random"].unsupported, 10);
}

}  // namespace
}  // namespace atom::text
