#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/normalizer.h"

namespace atom::text {

/// Removes up to `start` characters `content` from the begin of a text, and up to `stop` from its end.
struct StripCharacters {
  std::string content;  // one character
  size_t start = 0;
  size_t stop = 0;
  /// At the begin, only what pieces have made of U+2581, and of each piece one.
  bool marks = false;
  std::string apply(std::string_view text) const;
};

/// Writes the mark of Metaspace as a space; `drop_first`: leaves it out of the first token of a text.
struct MarkToSpace {
  std::string mark;
  bool drop_first;
};

/// How the texts of tokens become one text: what happens to each token for itself, and how they are joined.
struct TokenDecoder {
  std::vector<std::variant<ReplaceStep, StripCharacters, MarkToSpace>> steps;
  bool byte_level = false;  ///< tokens are written in the byte alphabet
  bool byte_fallback =
      false;              ///< tokens "<0x41>" are bytes; a run of them that is no UTF-8 is one U+FFFD each
  bool spaced = false;    ///< a space between two tokens
  StripCharacters strip;  ///< applied to the whole text

  /// The text of a token that the vocabulary writes as `token`; `first`: in front of all others.
  std::string apply(std::string_view token, bool first) const;

  /// Whether the first token of a text may differ from the same token further behind.
  bool first_differs() const;
};

/// The byte that a token "<0x41>" stands for, or -1.
int fallback_byte(std::string_view token);

/// How the byte is written as such a token.
std::string fallback_token(uint8_t byte);

}  // namespace atom::text
