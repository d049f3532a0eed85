#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"

namespace atom::text {

/// A normalization table as SentencePiece compiles it: a double-array trie of what to replace (Darts format)
/// and the texts to replace it by.
class Charsmap {
 public:
  /// How replacements are looked for. SentencePiece takes the longest key at each place; `tokenizers` takes
  /// the shortest key that begins a short grapheme, else looks each character up.
  enum class Search { kLongest, kGraphemes };

  /// `bytes`: the trie's size in bytes (32 bits, little-endian), the trie, the texts, each with a zero behind
  /// it. Throws Error naming `field` when they do not fit together.
  Charsmap(std::string_view bytes, Search search, std::string_view field);

  /// `text` (well-formed UTF-8) with everything replaced that the table has; well-formed again. Linear.
  /// Throws Error when the result would have more than `limit` bytes.
  std::string apply(std::string_view text, size_t limit) const;

  /// What a SentencePiece model with user-defined pieces makes of `text`: at each place the longest of
  /// `kept` stays as it is, else the table is looked up. Every space is written as U+2581; with
  /// `remove_extra_spaces` those in front of the text are left out, and those that what is kept or replaced
  /// begins with behind another space. Errors as of apply().
  std::string apply_around(const ByteTrie& kept, bool remove_extra_spaces, std::string_view text,
                           size_t limit) const;

 private:
  struct Found {
    size_t length = 0;  // of the key, 0 for none
    std::string_view replacement;
  };
  Found find(std::string_view text, bool longest) const;
  void apply_longest(std::string_view text, std::string& out, size_t limit) const;
  void apply_to_graphemes(std::string_view text, std::string& out, size_t limit) const;

  std::vector<uint32_t> units_;
  std::string texts_;
  Search search_;
};

}  // namespace atom::text
