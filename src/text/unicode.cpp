#include "text/unicode.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/utf8.h"
#include "text/regex.h"

namespace atom::text {
namespace {

constexpr char32_t kCodePoints = 0x110000;

bool is_surrogate(char32_t c) {
  return c >= 0xD800 && c <= 0xDFFF;
}

/// Sets `flag` for every code point that `pattern` matches.
void mark(std::vector<uint8_t>& flags, const std::string& all, const std::string& pattern, uint8_t flag) {
  const Regex regex(pattern, "character table");
  std::vector<Regex::Match> matches;
  regex.find_all(all, matches);
  for (const Regex::Match& match : matches) {
    std::string_view run(all.data() + match.begin, match.end - match.begin);
    while (!run.empty()) {
      const Utf8Char c = decode_utf8(run);
      flags[c.code_point] |= flag;
      run.remove_prefix(c.length);
    }
  }
}

// Digits and letter numbers of Unicode 17: Tolong Siki digits and three Han-like numerals.
constexpr UnicodeRange kNumericOf17[] = {{0x11DE0, 0x11DE9, "Nd"}, {0x16FF4, 0x16FF6, "Nl"}};

// Punctuation of Unicode 9 to 15: the Punctuation pre-tokenizer goes by Unicode 8.
constexpr UnicodeRange kLaterPunctuation[] = {
    {0x61D, 0x61D, "P"},     {0x9FD, 0x9FD, "P"},     {0xA76, 0xA76, "P"},     {0xC77, 0xC77, "P"},
    {0xC84, 0xC84, "P"},     {0x1B7D, 0x1B7E, "P"},   {0x2E43, 0x2E4F, "P"},   {0x2E52, 0x2E5D, "P"},
    {0x10EAD, 0x10EAD, "P"}, {0x10F55, 0x10F59, "P"}, {0x10F86, 0x10F89, "P"}, {0x1144B, 0x1144F, "P"},
    {0x1145A, 0x1145B, "P"}, {0x1145D, 0x1145D, "P"}, {0x11660, 0x1166C, "P"}, {0x116B9, 0x116B9, "P"},
    {0x1183B, 0x1183B, "P"}, {0x11944, 0x11946, "P"}, {0x119E2, 0x119E2, "P"}, {0x11A3F, 0x11A46, "P"},
    {0x11A9A, 0x11A9C, "P"}, {0x11A9E, 0x11AA2, "P"}, {0x11C41, 0x11C45, "P"}, {0x11C70, 0x11C71, "P"},
    {0x11EF7, 0x11EF8, "P"}, {0x11FFF, 0x11FFF, "P"}, {0x12FF1, 0x12FF2, "P"}, {0x16E97, 0x16E9A, "P"},
    {0x16FE2, 0x16FE2, "P"}, {0x1E95E, 0x1E95F, "P"},
};

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

size_t last_char(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

size_t white_space_begin_at_end(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t i = last_char(text.substr(0, end));
    if (!is_white_space(decode_utf8(text.substr(i)).code_point)) break;
    end = i;
  }
  return end;
}

size_t white_space_at_start(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(i));
    if (!is_white_space(c.code_point)) break;
    i += c.length;
  }
  return i;
}

CharTable::CharTable() {
  std::vector<uint8_t> flags(kCodePoints);
  // Planes 4 to 13 and 15, 16 hold no assigned letter, mark or number.
  std::string all;
  for (char32_t c = 0; c < 0x40000; ++c) {
    if (!is_surrogate(c)) append_utf8(all, c);
  }
  for (char32_t c = 0xE0000; c < 0xE1000; ++c) append_utf8(all, c);
  std::fill(flags.begin() + 0x40000, flags.end(), kHidden);
  mark(flags, all, "\\p{L}+", kLetter);
  mark(flags, all, "\\p{N}+", kNumber | kNumeric);
  mark(flags, all, "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]+", kWord);
  mark(flags, all, "[\\p{C}\\p{Z}]+", kHidden);
  // U+166D and U+111C9 were punctuation in Unicode 8.
  mark(flags, all, "[\\p{P}$+<=>^`|~\\x{166D}\\x{111C9}]+", kPunctuation);
  for (const UnicodeRange& range : kLaterPunctuation) {
    for (char32_t c = range.first; c <= range.last; ++c) flags[c] &= static_cast<uint8_t>(~kPunctuation);
  }
  for (const UnicodeRange& range : unicode_additions()) {
    const char major = range.category[0];
    uint8_t flag = 0;
    if (major == 'L') flag = kLetter | kWord;
    if (major == 'N') flag = kNumber | kNumeric;
    if (major == 'M' || std::strcmp(range.category, "Nd") == 0) flag |= kWord;
    for (char32_t c = range.first; c <= range.last; ++c) flags[c] |= flag;
  }
  for (const UnicodeRange& range : kNumericOf17) {
    for (char32_t c = range.first; c <= range.last; ++c) flags[c] |= kNumeric;
  }
  for (char32_t c = 0; c <= 0x3000; ++c) {
    if (is_white_space(c)) flags[c] |= kSpace;
  }
  flags[' '] &= static_cast<uint8_t>(~kHidden);

  std::map<std::array<uint8_t, 256>, uint16_t> known;
  for (char32_t block = 0; block < index_.size(); ++block) {
    std::array<uint8_t, 256> values;
    std::copy_n(flags.begin() + block * 256, 256, values.begin());
    const auto [it, is_new] = known.emplace(values, static_cast<uint16_t>(blocks_.size()));
    if (is_new) blocks_.push_back(values);
    index_[block] = it->second;
  }
}

const CharTable& CharTable::get() {
  static const CharTable table;
  return table;
}

size_t ill_formed_length(std::string_view text) {
  // The longest prefix that some well-formed character starts with; at least the one offending byte.
  for (size_t length = std::min<size_t>(3, text.size()); length > 1; --length) {
    if (incomplete_utf8_suffix(text.substr(0, length)) == length) return length;
  }
  return 1;
}

bool is_valid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word;
    if (i + 8 <= text.size() && (std::memcpy(&word, text.data() + i, 8), (word & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    const Utf8Char c = decode_utf8(text.substr(i));
    if (!c.valid) return false;
    i += c.length;
  }
  return true;
}

std::string lossy_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    const size_t length = c.valid ? c.length : ill_formed_length(text);
    if (c.valid) {
      out.append(text.substr(0, length));
    } else {
      append_utf8(out, 0xFFFD);
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace atom::text
