#include "text/normalization.h"

#include <algorithm>
#include <utf8proc.h>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace atom::text {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Source: the Unicode Character Database (DerivedAge, DerivedGeneralCategory, UnicodeData).
// Marks of Unicode 10 to 15.
constexpr Range kLaterMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xAFA, 0xAFF},
    {0xB55, 0xB55},     {0xC04, 0xC04},     {0xC3C, 0xC3C},     {0xCF3, 0xCF3},     {0xD00, 0xD00},
    {0xD3B, 0xD3C},     {0xD81, 0xD81},     {0xEBA, 0xEBA},     {0xECE, 0xECE},     {0x1715, 0x1715},
    {0x180F, 0x180F},   {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0xA8FF, 0xA8FF},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074}, {0x110C2, 0x110C2}, {0x11145, 0x11146},
    {0x111C9, 0x111C9}, {0x111CE, 0x111CF}, {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x1182C, 0x1183A}, {0x11930, 0x11935}, {0x11937, 0x11938}, {0x1193B, 0x1193E}, {0x11940, 0x11940},
    {0x11942, 0x11943}, {0x119D1, 0x119D7}, {0x119DA, 0x119E0}, {0x119E4, 0x119E4}, {0x11A01, 0x11A0A},
    {0x11A33, 0x11A39}, {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47}, {0x11A51, 0x11A5B}, {0x11A8A, 0x11A99},
    {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45}, {0x11D47, 0x11D47},
    {0x11D8A, 0x11D8E}, {0x11D90, 0x11D91}, {0x11D93, 0x11D97}, {0x11EF3, 0x11EF6}, {0x11F00, 0x11F01},
    {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F42}, {0x13440, 0x13440}, {0x13447, 0x13455},
    {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FE4}, {0x16FF0, 0x16FF1}, {0x1CF00, 0x1CF2D},
    {0x1CF30, 0x1CF46}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF},
};
// Other characters with a decomposition of Unicode 10 to 15.
constexpr Range kLaterDecompositions[] = {
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BA}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

struct LowerRange {
  char32_t first;
  char32_t last;
  int32_t distance;  // to the lower case of each
};
// Capital letters of Unicode 16 and 17, and one whose lower case is not a letter of its own.
constexpr LowerRange kLaterCapitals[] = {
    {0x1C89, 0x1C89, 1},    {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
    {0xA7CC, 0xA7CC, 1},    {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},    {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1},    {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
    {0x10D50, 0x10D65, 32}, {0x16EA0, 0x16EB8, 27},
};

template <size_t kCount>
bool is_in(const Range (&ranges)[kCount], char32_t c) {
  const auto after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                      [](char32_t v, const Range& r) { return v < r.first; });
  return after != std::begin(ranges) && c <= std::prev(after)->last;
}

bool is_later(char32_t c) {
  return c >= 0x7FD && (is_in(kLaterMarks, c) || is_in(kLaterDecompositions, c));
}

int combining_class(int32_t c) {
  return is_later(static_cast<char32_t>(c)) ? 0 : utf8proc_get_property(c)->combining_class;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

void append_decomposed(std::vector<int32_t>& out, char32_t c, bool compatible) {
  if (is_later(c)) {
    out.push_back(static_cast<int32_t>(c));
    return;
  }
  int32_t parts[32];  // the longest decomposition has 18
  int last_boundary = 0;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<int32_t>(c), parts, std::size(parts), options, &last_boundary);
  require(count >= 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts)),
          "text: U+{:04X} cannot be normalized", static_cast<uint32_t>(c));
  out.insert(out.end(), parts, parts + count);
}

/// Runs of marks in the order of their classes (the canonical ordering algorithm).
void order_marks(std::vector<int32_t>& points) {
  for (size_t i = 0; i < points.size();) {
    size_t end = i;
    while (end < points.size() && combining_class(points[end]) != 0) ++end;
    if (end > i + 1) {
      std::stable_sort(points.begin() + static_cast<std::ptrdiff_t>(i),
                       points.begin() + static_cast<std::ptrdiff_t>(end),
                       [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    }
    i = end + 1;
  }
}

/// Appends `points`, decomposed and ordered, to `out`, composed.
void append_composed(std::string& out, std::vector<int32_t>& points) {
  // Later characters neither compose nor stand between others as marks do: the parts around them are composed
  // each for itself.
  size_t begin = 0;
  const auto compose = [&](size_t end) {
    const auto count = static_cast<utf8proc_ssize_t>(end - begin);
    const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
        points.data() + begin, count, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    for (utf8proc_ssize_t i = 0; i < composed; ++i)
      append_utf8(out, static_cast<char32_t>(points[begin + static_cast<size_t>(i)]));
  };
  for (size_t i = 0; i < points.size(); ++i) {
    if (!is_later(static_cast<char32_t>(points[i]))) continue;
    compose(i);
    append_utf8(out, static_cast<char32_t>(points[i]));
    begin = i + 1;
  }
  compose(points.size());
}

}  // namespace

std::string normalize_unicode(std::string_view text, NormalizationForm form) {
  if (is_ascii(text)) return std::string(text);
  const bool compatible = form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd;
  const bool composed = form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc;
  std::string out;
  out.reserve(text.size());
  std::vector<int32_t> points;
  const auto flush = [&] {
    order_marks(points);
    if (composed) {
      append_composed(out, points);
    } else {
      for (const int32_t point : points) append_utf8(out, static_cast<char32_t>(point));
    }
    points.clear();
  };
  while (!text.empty()) {
    // A stretch of ASCII stands for itself, but for its last character, which a mark behind it may change.
    const size_t ascii = static_cast<size_t>(
        std::find_if(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) < 0; }) -
        text.begin());
    if (ascii > 1) {
      flush();
      out.append(text.substr(0, ascii - 1));
      text.remove_prefix(ascii - 1);
    }
    const Utf8Char c = decode_utf8(text);
    append_decomposed(points, c.code_point, compatible);
    text.remove_prefix(c.length);
  }
  flush();
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    text.remove_prefix(c.length);
    if (c.code_point < 0x80) {
      const auto byte = static_cast<char>(c.code_point);
      out += byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + 32) : byte;
      continue;
    }
    if (c.code_point == 0x130) {
      out += "i\xCC\x87";
      continue;
    }
    auto lower = static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c.code_point)));
    for (const LowerRange& range : kLaterCapitals) {
      if (c.code_point >= range.first && c.code_point <= range.last)
        lower = static_cast<char32_t>(static_cast<int32_t>(c.code_point) + range.distance);
    }
    append_utf8(out, lower);
  }
  return out;
}

std::string strip_marks(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    const utf8proc_category_t category = utf8proc_category(static_cast<int32_t>(c.code_point));
    const bool mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                      category == UTF8PROC_CATEGORY_ME || c.code_point == 0x1CF2 || c.code_point == 0x1CF3;
    if (!mark || is_in(kLaterMarks, c.code_point)) out.append(text.substr(0, c.length));
    text.remove_prefix(c.length);
  }
  return out;
}

}  // namespace atom::text
