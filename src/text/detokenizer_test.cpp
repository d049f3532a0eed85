#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

TEST(Utf8Assembler, SumEqualsLossyTextAndIsAlwaysWellFormed) {
  Random random(7);
  const char* parts[] = {"a",    "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xE2",
                         "\x82", "\xF0\x9F", "\xFF",         "\xED\xA0\x80",     "\xC0"};
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (uint64_t i = random.below(8); i > 0; --i) bytes += parts[random.below(std::size(parts))];
    Utf8Assembler assembler;
    std::string out;
    for (size_t i = 0; i < bytes.size();) {
      const size_t step = 1 + random.below(4);
      const std::string piece = assembler.push(std::string_view(bytes).substr(i, step));
      EXPECT_TRUE(is_valid_utf8(piece));
      out += piece;
      i += step;
    }
    out += assembler.finish();
    EXPECT_EQ(out, lossy_utf8(bytes));
    EXPECT_EQ(assembler.finish(), "");
  }
}

TEST(Utf8Assembler, HoldsBackOnlyWhatIsIncomplete) {
  Utf8Assembler assembler;
  EXPECT_EQ(assembler.push("a\xE2\x82"), "a");
  EXPECT_EQ(assembler.push("\xAC"
                           "b"),
            "\xE2\x82\xAC"
            "b");
  EXPECT_EQ(assembler.push("\xE2\x82"), "");
  EXPECT_EQ(assembler.push("x"), "\xEF\xBF\xBDx");
}

TEST(LossyUtf8, ReplacesMaximalSubparts) {
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(lossy_utf8("\xE2\x82"), mark);
  EXPECT_EQ(lossy_utf8("\xF0\x9F\x98"), mark);
  EXPECT_EQ(lossy_utf8("\xED\xA0\x80"), mark + mark + mark);
  EXPECT_EQ(lossy_utf8("\xC0\xAF"), mark + mark);
  EXPECT_EQ(lossy_utf8("\xF4\x90\x80\x80"), mark + mark + mark + mark);
  EXPECT_EQ(lossy_utf8("\xE2\x28\xA1"), mark + "(" + mark);
}

/// What a matcher gives for `text` in one piece: the text up to the stop string that is complete first.
std::pair<std::string, bool> expected_output(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, DoesNotDependOnHowTheTextIsCut) {
  Random random(9);
  for (int round = 0; round < 5000; ++round) {
    const auto word = [&](uint64_t most) {
      std::string made;
      for (uint64_t i = 1 + random.below(most); i > 0; --i) made += "abc"[random.below(3)];
      return made;
    };
    std::vector<std::string> stops;
    for (uint64_t i = random.below(4); i > 0; --i) stops.push_back(word(4));
    const std::string text = word(14);
    StopMatcher matcher(stops);
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const size_t step = 1 + random.below(4);
      out += matcher.push(text.substr(i, step));
      i += step;
    }
    out += matcher.finish();
    const auto [expected, matched] = expected_output(text, stops);
    EXPECT_EQ(out, expected) << text;
    EXPECT_EQ(matcher.matched(), matched) << text;
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatCouldBeAStop) {
  StopMatcher matcher({"", "</s>"});
  EXPECT_EQ(matcher.push("hello <"), "hello ");
  EXPECT_EQ(matcher.push("b"), "<b");
  EXPECT_EQ(matcher.push("</s"), "");
  EXPECT_EQ(matcher.push("> more"), "");
  EXPECT_EQ(matcher.match(), "</s>");
  EXPECT_EQ(matcher.push("more"), "");
}

}  // namespace
}  // namespace atom::text
