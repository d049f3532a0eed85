#include "base/error.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

TEST(Error, RequireThrowsTheFormattedLineOnlyWhenItMust) {
  EXPECT_NO_THROW(require(true, "never {}", 1));
  try {
    require(false, "{}: expected {} rows, found {}", "a.gguf", 3, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a.gguf: expected 3 rows, found 4");
  }
  EXPECT_THROW(throw UsageError("x"), Error);
  EXPECT_THROW(throw Interrupted(), Error);
}

TEST(Printable, EscapesControlsAndBrokenUtf8) {
  EXPECT_EQ(printable("plain gr\xC3\xBC\xC3\x9F"), "plain gr\xC3\xBC\xC3\x9F");
  EXPECT_EQ(printable("a\nb\x1B[0m\x7F"), "a\\x0ab\\x1b[0m\\x7f");
  EXPECT_EQ(printable(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(printable("\xC3\x28\xFF"), "\\xc3(\\xff");
  // U+0085, a line break to some terminals.
  EXPECT_EQ(printable("\xC2\x85"), "\\xc2\\x85");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, CutsLongTextBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abcdef...");
  // The character that straddles the limit is kept whole.
  EXPECT_EQ(printable("abc\xE2\x82\xAC\x64", 4), "abc\xE2\x82\xAC...");
  EXPECT_EQ(printable("abc\xE2\x82\xAC", 4), "abc\xE2\x82\xAC");
}

}  // namespace
}  // namespace atom
