#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

/// The character that vocabularies without a byte alphabet write a space with: U+2581, in UTF-8.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/// Code points `first` to `last` of one general category ("Lu", "Nd", ...).
struct UnicodeRange {
  char32_t first;
  char32_t last;
  const char* category;
};

/// Code points that Unicode 15.0, 15.1 and 16.0 assigned. PCRE2 10.42 knows Unicode 14, the regex engine of
/// `tokenizers` knows 16: patterns are widened by these ranges so that both split alike.
std::span<const UnicodeRange> unicode_additions();

/// Properties of a code point that pre-tokenizers ask for, one byte each.
class CharTable {
 public:
  static constexpr uint8_t kLetter = 1;        ///< \p{L}
  static constexpr uint8_t kNumber = 2;        ///< \p{N}
  static constexpr uint8_t kSpace = 4;         ///< White_Space
  static constexpr uint8_t kNumeric = 8;       ///< \p{N} of Unicode 17, what the Digits pre-tokenizer goes by
  static constexpr uint8_t kWord = 16;         ///< \w of UTS #18 with Join_Control
  static constexpr uint8_t kPunctuation = 64;  ///< \p{P} of Unicode 8 and the ASCII punctuation
  static constexpr uint8_t kHidden = 32;  ///< \p{C} and \p{Z} without the space: what Python's repr() escapes

  /// The one table, made at the first call (about 20 ms).
  static const CharTable& get();

  uint8_t flags(char32_t code_point) const {
    return code_point > 0x10FFFF ? 0 : blocks_[index_[code_point >> 8]][code_point & 0xFF];
  }
  bool has(char32_t code_point, uint8_t flag) const { return (flags(code_point) & flag) != 0; }

 private:
  CharTable();
  std::array<uint16_t, 0x1100> index_{};
  std::vector<std::array<uint8_t, 256>> blocks_;
};

/// Code points with the property White_Space.
bool is_white_space(char32_t code_point);

/// Begin of the last character of `text`, which is not empty and well-formed.
size_t last_char(std::string_view text);

/// Bytes of white space at the start of `text` (well-formed UTF-8).
size_t white_space_at_start(std::string_view text);

/// Where the white space at the end of `text` (well-formed UTF-8) begins.
size_t white_space_begin_at_end(std::string_view text);

/// `text` with every maximal ill-formed subsequence replaced by one U+FFFD, as Python's errors="replace" and
/// Rust's from_utf8_lossy do it (Unicode, section 3.9, "U+FFFD substitution of maximal subparts").
std::string lossy_utf8(std::string_view text);

/// Whether the whole of `text` is well-formed UTF-8.
bool is_valid_utf8(std::string_view text);

/// Bytes of the maximal ill-formed subsequence at the start of `text`, which must begin with one (1 to 3).
size_t ill_formed_length(std::string_view text);

}  // namespace atom::text
