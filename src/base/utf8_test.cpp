#include "base/utf8.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace atom {
namespace {

std::string encoded(char32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

bool surrogate(char32_t c) {
  return c >= 0xD800 && c <= 0xDFFF;
}

TEST(Utf8, EveryCodePointSurvivesTheRoundTrip) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (surrogate(c)) continue;
    const std::string text = encoded(c);
    const Utf8Char read = decode_utf8(text + "x");
    ASSERT_TRUE(read.valid) << static_cast<uint32_t>(c);
    ASSERT_EQ(read.code_point, c);
    ASSERT_EQ(read.length, text.size());
    ASSERT_EQ(incomplete_utf8_suffix(text), 0u);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_FALSE(decode_utf8(text.substr(0, cut)).valid);
      ASSERT_EQ(incomplete_utf8_suffix("ab" + text.substr(0, cut)), cut) << static_cast<uint32_t>(c);
    }
  }
}

TEST(Utf8, WhatIsNoCharacterBecomesTheReplacement) {
  EXPECT_EQ(encoded(0xD800), "\xEF\xBF\xBD");
  EXPECT_EQ(encoded(0xDFFF), "\xEF\xBF\xBD");
  EXPECT_EQ(encoded(0x110000), "\xEF\xBF\xBD");
  EXPECT_EQ(encoded(0xFFFFFFFF), "\xEF\xBF\xBD");
}

TEST(Utf8, AcceptsExactlyTheWellFormedSequencesOfUpToThreeBytes) {
  size_t valid = 0;
  // From the first byte that is neither ASCII nor a continuation.
  for (uint32_t bytes = 0xC00000; bytes < (1u << 24); ++bytes) {
    const char text[] = {static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8),
                         static_cast<char>(bytes)};
    const Utf8Char c = decode_utf8({text, 3});
    if (!c.valid) {
      ASSERT_EQ(c.length, 1);
      ASSERT_EQ(c.code_point, 0xFFFDu);
    } else if (c.length == 3) {
      ++valid;
      ASSERT_EQ(encoded(c.code_point), std::string(text, 3));
    }
  }
  // U+0800 to U+FFFF without surrogates.
  EXPECT_EQ(valid, 0x10000u - 0x800u - 0x800u);
}

TEST(Utf8, RejectsOverlongSurrogatesAndTooLarge) {
  for (const char* text :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\x80", "\xBF", "\xFE", "\xFF", "\xE2\x28\xA1"}) {
    const Utf8Char c = decode_utf8(text);
    EXPECT_FALSE(c.valid) << text;
    EXPECT_EQ(c.length, 1);
  }
}

TEST(Utf8, IncompleteSuffixIsOnlyWhatCanStillBeCompleted) {
  EXPECT_EQ(incomplete_utf8_suffix(""), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("abc"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xF0\x9F\x98"), 3u);
  EXPECT_EQ(incomplete_utf8_suffix("\xC3"), 1u);
  EXPECT_EQ(incomplete_utf8_suffix("\xC0"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xE0\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xED\xA0"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xF4\x90"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xC3\xA9"), 0u);
}

TEST(Utf8, SanitizedTextIsWellFormedAndKeepsWhatWas) {
  EXPECT_EQ(sanitize_utf8("gr\xC3\xBC\xC3\x9F\x65"), "gr\xC3\xBC\xC3\x9F\x65");
  EXPECT_EQ(sanitize_utf8("a\xFF\x62"), "a\xEF\xBF\xBD\x62");
  Random random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint64_t n = random.below(20); n > 0; --n) text += static_cast<char>(random.next());
    const std::string clean = sanitize_utf8(text);
    for (size_t i = 0; i < clean.size();) {
      const Utf8Char c = decode_utf8(std::string_view(clean).substr(i));
      ASSERT_TRUE(c.valid);
      i += c.length;
    }
    EXPECT_EQ(sanitize_utf8(clean), clean);
  }
}

TEST(Utf8, StreamingByTheSuffixNeverSplitsACharacter) {
  Random random(2);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) append_utf8(text, static_cast<char32_t>(random.below(0xD800)));
    std::string pending, out;
    for (const char byte : text) {
      pending += byte;
      const size_t ready = pending.size() - incomplete_utf8_suffix(pending);
      const std::string piece = pending.substr(0, ready);
      ASSERT_EQ(sanitize_utf8(piece), piece);
      out += piece;
      pending.erase(0, ready);
    }
    EXPECT_EQ(out, text);
    EXPECT_TRUE(pending.empty());
  }
}

}  // namespace
}  // namespace atom
