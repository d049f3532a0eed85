#include "text/case.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace atom::text {
namespace {

struct Special {
  char32_t from;
  const char* upper;
};
constexpr Special kUpperSpecials[] = {
    {0xDF, "SS"},    {0x149, "\xCA\xBCN"}, {0xFB00, "FF"}, {0xFB01, "FI"}, {0xFB02, "FL"},
    {0xFB03, "FFI"}, {0xFB04, "FFL"},      {0xFB05, "ST"}, {0xFB06, "ST"},
};
constexpr char32_t kDottedCapitalI = 0x130;
constexpr char32_t kCapitalSigma = 0x3A3;

/// The simple mapping of every character, by PCRE2's case-forcing substitution: the one part of the library
/// that gives its case tables out.
std::string simple_mapping(std::string_view text, Case to) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const auto literal = [](const char* s) { return reinterpret_cast<PCRE2_SPTR>(s); };
  pcre2_code* code = pcre2_compile(literal(".+"), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL,
                                   &error, &offset, nullptr);
  if (code == nullptr) throw std::bad_alloc();
  // Upper and lower forms of a character differ by at most two bytes to three.
  std::string out(text.size() * 3 + 16, '\0');
  PCRE2_SIZE length = out.size();
  const int rc = pcre2_substitute(code, literal(text.data()), text.size(), 0,
                                  PCRE2_SUBSTITUTE_EXTENDED | PCRE2_NO_UTF_CHECK, nullptr, nullptr,
                                  literal(to == Case::kUpper ? "\\U$0" : "\\L$0"), PCRE2_ZERO_TERMINATED,
                                  reinterpret_cast<PCRE2_UCHAR*>(out.data()), &length);
  pcre2_code_free(code);
  require(rc >= 0, "text of {} bytes cannot be changed in case", text.size());
  out.resize(length);
  return out;
}

bool is_letter_at(std::string_view text, size_t i) {
  return i < text.size() && CharTable::get().has(decode_utf8(text.substr(i)).code_point, CharTable::kLetter);
}

std::string change_beyond_ascii(std::string_view text, Case to) {
  std::string out;
  size_t plain = 0;
  const auto flush = [&](size_t end) {
    if (end > plain) out += simple_mapping(text.substr(plain, end - plain), to);
  };
  bool after_letter = false;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(i));
    const size_t next = i + c.length;
    std::string special;
    if (to == Case::kUpper) {
      for (const Special& entry : kUpperSpecials) {
        if (entry.from == c.code_point) special = entry.upper;
      }
    } else if (c.code_point == kDottedCapitalI) {
      special = "i\xCC\x87";
    } else if (c.code_point == kCapitalSigma && after_letter && !is_letter_at(text, next)) {
      special = "\xCF\x82";
    }
    if (!special.empty()) {
      flush(i);
      out += special;
      plain = next;
    }
    after_letter = CharTable::get().has(c.code_point, CharTable::kLetter);
    i = next;
  }
  flush(text.size());
  return out;
}

}  // namespace

std::string change_case(std::string_view text, Case to) {
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (!ascii) return change_beyond_ascii(text, to);
  std::string out(text);
  for (char& c : out) {
    if (to == Case::kUpper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (to == Case::kLower && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace atom::text
