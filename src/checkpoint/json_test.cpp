#include "checkpoint/json.h"

#include <chrono>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing/temp_dir.h"

namespace atom {
namespace {

std::string error_of(std::string_view text, JsonLimits limits = {}) {
  try {
    parse_json(text, "file.json", limits);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Json, ParsesEveryKindInOrder) {
  const auto document =
      parse_json(R"({"z": [1, -2, 2.5, true, false, null, "\u00e9\n", {}], "a": {"b": []}})", "file.json");
  EXPECT_EQ(document.dump(), R"({"z":[1,-2,2.5,true,false,null,"é\n",{}],"a":{"b":[]}})");
  EXPECT_EQ(document, nlohmann::ordered_json::parse(document.dump()));
  EXPECT_EQ(parse_json("3", "file.json"), 3);
}

TEST(Json, DecimalsOfFloats) {
  EXPECT_EQ(decimal(0.85f), 0.85);
  EXPECT_EQ(decimal(1e-5f), 1e-5);
  EXPECT_EQ(decimal(100000.0f), 100000.0);
  for (const float x : {0.1f, 3.4028235e38f, 1e-45f, 500000.0f}) EXPECT_EQ(static_cast<float>(decimal(x)), x);
}

TEST(Json, NamesFileAndPosition) {
  const std::string error = error_of("{\"a\": 1,\n \"b\": }");
  EXPECT_NE(error.find("file.json: invalid JSON at byte 16"), std::string::npos) << error;
  EXPECT_NE(error.find("line 2"), std::string::npos) << error;
  EXPECT_EQ(error.find('\n'), std::string::npos) << error;
}

TEST(Json, RefusesWhatIsNotOneDocument) {
  for (const char* text :
       {"", " ", "{", "[1", "{\"a\"}", "{\"a\":1,}", "[1] 2", "nul", "\"\x01\"", "\"\xff\"", "\"\\ud800\"",
        "1e999", "\xef\xbb", "{\"a\":1,\"a\":2}", "[1,,2]", "'a'"}) {
    EXPECT_NE(error_of(text), "") << text;
  }
  EXPECT_NE(error_of("{\"a\":1,\"a\":2}").find("\"a\" appears twice"), std::string::npos);
}

TEST(Json, ErrorsDoNotNameTheLibrary) {
  EXPECT_EQ(error_of("[1e999]"), "file.json: invalid JSON at byte 6: number overflow parsing '1e999'");
  for (const char* text : {"", "[1,,2]", "\"\xff\"", "1e999"}) {
    EXPECT_EQ(error_of(text).find("json.exception"), std::string::npos) << error_of(text);
  }
}

TEST(Json, EveryPrefixOfADocumentIsAnError) {
  const std::string text = R"({"a":[1.5,{"b":"x\u0041","c":null}],"d":true})";
  ASSERT_EQ(error_of(text), "");
  for (size_t length = 0; length < text.size(); ++length)
    EXPECT_NE(error_of(text.substr(0, length)), "") << length;
}

TEST(Json, LimitsDepthAndSize) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(error_of(nested(64)), "");
  EXPECT_EQ(error_of(nested(65)), "file.json: invalid JSON: nested deeper than 64 levels");
  EXPECT_NE(error_of(nested(5'000'000)).find("nested deeper"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(error_of(objects).find("nested deeper"), std::string::npos);
  EXPECT_EQ(error_of("[1,2,3]", {6, 64}), "file.json: invalid JSON: expected at most 6 bytes, found 7");
}

TEST(Json, LargeObjectsTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += fmt::format("{}\"k{}\":{}", i == 0 ? "" : ",", i, i);
  text += "}";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text, "file.json").size(), 200'000u);
  // Quadratic insertion needs minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(Json, ReadsFiles) {
  const test_support::TempDir dir;
  EXPECT_EQ(read_json_file(dir.write("a.json", "{\"x\": 1}"))["x"], 1);
  EXPECT_THROW(read_json_file(dir.path() / "missing.json"), Error);
  EXPECT_THROW(read_json_file(dir.path()), Error);
}

}  // namespace
}  // namespace atom
