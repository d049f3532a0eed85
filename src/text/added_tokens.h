#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"

namespace atom::text {

/// A token that is found in the text before the model sees it.
struct AddedToken {
  std::string content;
  std::string pattern;  ///< what to look for: the content, or what normalization makes of it
  int32_t id = 0;
  bool special = false;
  bool lstrip = false;       ///< takes the white space in front with it
  bool rstrip = false;       ///< takes the white space behind with it
  bool single_word = false;  ///< counts only where no word character touches it
  bool normalized = true;    ///< looked for in the normalized text, behind all that are not
};

/// A stretch of text: one added token, or text for the model (`id` -1).
struct Segment {
  std::string_view text;
  int32_t id;
};

/// Finds added tokens: leftmost first, the longest among those that begin at one place.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

  /// Cuts `text` (well-formed UTF-8) at the tokens that are looked for in the text as it is. With
  /// `parse_special` false, special tokens are text like any other.
  void split_verbatim(std::string_view text, bool parse_special, std::vector<Segment>& out) const;

  /// Cuts normalized text at those that are looked for in normalized text.
  void split_normalized(std::string_view text, bool parse_special, std::vector<Segment>& out) const;

 private:
  void pass(const ByteTrie& finder, std::string_view text, bool parse_special,
            std::vector<Segment>& out) const;

  std::vector<AddedToken> tokens_;
  ByteTrie verbatim_;
  ByteTrie normalized_;
};

}  // namespace atom::text
