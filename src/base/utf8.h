#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace atom {

/// One step of reading UTF-8. An ill-formed sequence has `valid == false`, `length == 1` (the offending byte)
/// and `code_point` U+FFFD, so that a caller who advances by `length` always terminates.
struct Utf8Char {
  char32_t code_point = 0xFFFD;
  uint8_t length = 1;
  bool valid = false;
};

/// Reads the first character of `text`, which must not be empty. Rejects overlong forms, surrogates and
/// values beyond U+10FFFF.
Utf8Char decode_utf8(std::string_view text);

/// Appends `code_point` to `out` in UTF-8; surrogates and values beyond U+10FFFF become U+FFFD.
void append_utf8(std::string& out, char32_t code_point);

/// Bytes at the end of `text` that begin a character which is not complete yet (0 to 3).
size_t incomplete_utf8_suffix(std::string_view text);

/// `text` with every ill-formed byte replaced by U+FFFD.
std::string sanitize_utf8(std::string_view text);

}  // namespace atom
