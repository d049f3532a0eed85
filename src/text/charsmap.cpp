#include "text/charsmap.h"

#include <algorithm>
#include <cstring>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// A unit of a Darts trie (darts-clone): bits 0-7 the label and bit 31 unset for an inner node; bit 8 says
// that a leaf with a value hangs below; bits 10-30 the offset of the children, times 256 when bit 9 is set.
uint32_t label_of(uint32_t unit) {
  return unit & ((1u << 31) | 0xFF);
}
bool has_leaf(uint32_t unit) {
  return ((unit >> 8) & 1) != 0;
}
uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}
uint32_t value_of(uint32_t unit) {
  return unit & ((1u << 31) - 1);
}

// Longer ones are cut; the longest that Unicode has takes 33 bytes.
constexpr size_t kLongestReplacement = 1024;

void append(std::string& out, std::string_view part, size_t limit) {
  require(out.size() + part.size() <= limit, "text: normalization makes more than {} bytes of it", limit);
  out += part;
}

}  // namespace

Charsmap::Charsmap(std::string_view bytes, Search search, std::string_view field) : search_(search) {
  uint32_t trie_bytes = 0;
  require(bytes.size() >= sizeof(trie_bytes), "{}: expected a table of at least 4 bytes, found {}", field,
          bytes.size());
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  bytes.remove_prefix(sizeof(trie_bytes));
  require(trie_bytes % sizeof(uint32_t) == 0 && trie_bytes > 0 && trie_bytes <= bytes.size(),
          "{}: expected a trie of at most {} bytes, a multiple of 4, found {}", field, bytes.size(),
          trie_bytes);
  units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(units_.data(), bytes.data(), trie_bytes);
  texts_ = bytes.substr(trie_bytes);
  require(is_valid_utf8(texts_), "{}: the replacements are not valid UTF-8", field);
  require(texts_.empty() || texts_.back() == '\0', "{}: the last replacement has no end", field);
}

Charsmap::Found Charsmap::find(std::string_view text, bool longest) const {
  Found found;
  uint32_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size()) break;
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) break;
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) break;
    const uint32_t value = value_of(units_[node]);
    if (value >= texts_.size()) break;
    found.length = i + 1;
    found.replacement = std::string_view(texts_).substr(value, kLongestReplacement);
    found.replacement = found.replacement.substr(0, found.replacement.find('\0'));
    if (!longest) break;
  }
  // A key, or a place in the texts, may cut a character in a table that was not made by SentencePiece.
  if (found.length > 0 && (!is_valid_utf8(text.substr(0, found.length)) || !is_valid_utf8(found.replacement)))
    return {};
  return found;
}

std::string Charsmap::apply(std::string_view text, size_t limit) const {
  std::string out;
  out.reserve(text.size());
  if (search_ == Search::kLongest) {
    apply_longest(text, out, limit);
  } else {
    apply_to_graphemes(text, out, limit);
  }
  return out;
}

void Charsmap::apply_longest(std::string_view text, std::string& out, size_t limit) const {
  while (!text.empty()) {
    const Found found = find(text, true);
    const size_t length = found.length > 0 ? found.length : decode_utf8(text).length;
    append(out, found.length > 0 ? found.replacement : text.substr(0, length), limit);
    text.remove_prefix(length);
  }
}

std::string Charsmap::apply_around(const ByteTrie& kept, bool remove_extra_spaces, std::string_view text,
                                   size_t limit) const {
  std::string out;
  out.reserve(text.size());
  bool behind_space = remove_extra_spaces;
  while (!text.empty()) {
    size_t length = kept.longest(text).length;
    std::string_view part = text.substr(0, length);
    if (length == 0) {
      const Found found = find(text, true);
      length = found.length > 0 ? found.length : decode_utf8(text).length;
      part = found.length > 0 ? found.replacement : text.substr(0, length);
    }
    text.remove_prefix(length);
    if (behind_space) part.remove_prefix(std::min(part.find_first_not_of(' '), part.size()));
    if (part.empty()) continue;
    behind_space = remove_extra_spaces && part.back() == ' ';
    for (size_t space = part.find(' '); space != std::string_view::npos; space = part.find(' ')) {
      append(out, part.substr(0, space), limit);
      append(out, kSpaceMark, limit);
      part.remove_prefix(space + 1);
    }
    append(out, part, limit);
  }
  return out;
}

void Charsmap::apply_to_graphemes(std::string_view text, std::string& out, size_t limit) const {
  constexpr size_t kShort = 6;
  while (!text.empty()) {
    Utf8Char c = decode_utf8(text);
    size_t end = c.length;
    int32_t state = 0;
    while (end < text.size()) {
      const Utf8Char next = decode_utf8(text.substr(end));
      if (utf8proc_grapheme_break_stateful(static_cast<int32_t>(c.code_point),
                                           static_cast<int32_t>(next.code_point), &state)) {
        break;
      }
      c = next;
      end += next.length;
    }
    std::string_view grapheme = text.substr(0, end);
    text.remove_prefix(end);
    if (grapheme.size() < kShort) {
      if (const Found found = find(grapheme, false); found.length > 0) {
        append(out, found.replacement, limit);
        continue;
      }
    }
    while (!grapheme.empty()) {
      const std::string_view character = grapheme.substr(0, decode_utf8(grapheme).length);
      const Found found = find(character, false);
      append(out, found.length > 0 ? found.replacement : character, limit);
      grapheme.remove_prefix(character.size());
    }
  }
}

}  // namespace atom::text
