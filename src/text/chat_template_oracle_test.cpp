#include <map>

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/oracle_testing.h"

namespace atom::text {
namespace {

using Json = nlohmann::ordered_json;

TEST(ChatTemplateOracle, RendersWhatJinja2Renders) {
  if (environment("ATOM_TEST_PYTHON").empty()) GTEST_SKIP() << "ATOM_TEST_PYTHON is not set";
  const TempDir folder;
  const std::filesystem::path path = folder.path() / "cases.jsonl";
  std::string arguments = "--out '" + path.string() + "'";
  if (!environment("ATOM_TEST_MODEL").empty())
    arguments += " --model '" + environment("ATOM_TEST_MODEL") + "'";
  ASSERT_TRUE(run_oracle("text_template.py", arguments));

  std::ifstream cases(path);
  std::string line;
  std::map<std::string, int> rendered;
  std::map<std::string, int> refused;
  int unsupported = 0;
  while (std::getline(cases, line)) {
    const Json test = Json::parse(line);
    const std::string name = test["name"];
    const std::string source = test["template"];
    std::string got;
    std::string error;
    try {
      const ChatTemplate chat_template(source, name);
      got = chat_template.render(test["messages"], test["add_generation_prompt"].get<bool>(),
                                 test["variables"]);
    } catch (const Error& caught) {
      error = caught.what();
    }
    const std::string shown = source.size() < 200 ? source : name;
    if (test["expected"].is_null()) {
      ++refused[name];
      EXPECT_FALSE(error.empty()) << shown << "\nrendered \"" << got << "\" where jinja2 fails";
    } else {
      // A construct that is named as not supported is no wrong result; there must be few.
      if (error.find("supported") != std::string::npos) {
        ++unsupported;
        continue;
      }
      ++rendered[name];
      EXPECT_EQ(error, "") << shown << "\nexpected " << test["expected"].dump();
      if (error.empty()) {
        EXPECT_EQ(got, test["expected"].get<std::string>()) << shown;
      }
    }
  }
  EXPECT_LE(unsupported, 2);
  EXPECT_GE(rendered["smollm2"], 200);
  EXPECT_GE(rendered["chatml"] + refused["chatml"], 300);
  EXPECT_GE(rendered["llama31"], 100);
  EXPECT_GE(rendered["mistral"], 50);
  EXPECT_GE(rendered["macros"], 100);
  EXPECT_GE(rendered["expression"], 300);
  EXPECT_GE(rendered["statement"], 35);
  EXPECT_GE(refused["statement"], 15);
}

}  // namespace
}  // namespace atom::text
