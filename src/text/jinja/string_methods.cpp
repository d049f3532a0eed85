#include "text/jinja/string_methods.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/python_string.h"
#include "text/jinja/string_format.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;

/// A part of a text, text[start:end], and how many characters lie in front of it.
struct Part {
  std::string_view text;
  int64_t start;
};

/// The part that the arguments at `first` and behind it name; none when it begins behind the end.
std::optional<Part> part_of(const Bound& bound, size_t first, std::string_view text) {
  const auto given = [&](size_t i) { return bound.get(i) != nullptr && !bound.get(i)->is_none(); };
  if (!given(first) && !given(first + 1)) return Part{text, 0};
  const auto size = static_cast<int64_t>(char_count(text));
  const auto position = [&](size_t i, int64_t fallback) {
    if (!given(i)) return fallback;
    const int64_t value = bound.integer_or(i, 0);
    return value < 0 ? std::max<int64_t>(value + size, 0) : value;
  };
  const int64_t start = position(first, 0);
  const int64_t end = std::min(position(first + 1, size), size);
  if (start > size || start > end) return std::nullopt;
  const auto bytes = [&](int64_t count) {
    size_t i = 0;
    for (; count > 0; --count) i += decode_utf8(text.substr(i)).length;
    return i;
  };
  const size_t begin = bytes(start);
  return Part{text.substr(begin, bytes(end) - begin), start};
}

template <bool at_start>
Value starts_or_ends(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound(at_start ? "startswith" : "endswith", arguments, {"prefix", "start", "end"}, 1);
  evaluator.charge_text(self.string().size());
  const std::optional<Part> part = part_of(bound, 1, self.string());
  const Value& affixes = *bound.get(0);
  const auto matches = [&](const Value& affix) {
    require(affix.is_string(), "expected a string or a tuple of strings, found {}", affix.type_name());
    if (!part) return false;
    return at_start ? part->text.starts_with(affix.string()) : part->text.ends_with(affix.string());
  };
  if (!affixes.is_sequence(SequenceKind::kTuple)) return Value(matches(affixes));
  return Value(std::any_of(affixes.list().items.begin(), affixes.list().items.end(), matches));
}

template <bool from_right, bool must_exist>
Value find_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("find", arguments, {"sub", "start", "end"}, 1);
  evaluator.charge_text(self.string().size());
  const std::string sought = bound.string_or(0, "");
  const std::optional<Part> part = part_of(bound, 1, self.string());
  size_t found = std::string_view::npos;
  if (part) found = from_right ? find_last_part(part->text, sought) : find_part(part->text, sought);
  require(!must_exist || found != std::string_view::npos, "substring not found");
  if (found == std::string_view::npos) return Value(int64_t{-1});
  return Value(part->start + static_cast<int64_t>(char_count(part->text.substr(0, found))));
}

Value count_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"sub", "start", "end"}, 1);
  evaluator.charge_text(self.string().size());
  const std::string sought = bound.string_or(0, "");
  const std::optional<Part> part = part_of(bound, 1, self.string());
  if (!part) return Value(int64_t{0});
  if (sought.empty()) return Value(static_cast<int64_t>(char_count(part->text)) + 1);
  return Value(static_cast<int64_t>(split(part->text, sought, -1).size()) - 1);
}

template <bool at_start>
Value remove_affix(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound(at_start ? "removeprefix" : "removesuffix", arguments, {"affix"}, 1);
  std::string_view text = self.string();
  const std::string affix = bound.string_or(0, "");
  evaluator.charge_text(text.size());
  if (at_start && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!at_start && text.ends_with(affix)) text.remove_suffix(affix.size());
  return Value(text);
}

/// What stands before, in and behind the first (or last) separator.
template <bool from_right>
Value partition(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string_view text = self.string();
  evaluator.charge_text(text.size());
  const std::string separator = bound.string_or(0, "");
  require(!separator.empty(), "empty separator");
  const size_t found = from_right ? find_last_part(text, separator) : find_part(text, separator);
  std::vector<Value> parts;
  if (found != std::string_view::npos) {
    parts = {Value(text.substr(0, found)), Value(separator), Value(text.substr(found + separator.size()))};
  } else if (from_right) {
    parts = {Value(""), Value(""), Value(text)};
  } else {
    parts = {Value(text), Value(""), Value("")};
  }
  return Value::sequence(std::move(parts), SequenceKind::kTuple);
}

/// Whether all characters hold; of no characters, `of_none`.
template <bool (*holds)(char32_t), bool of_none>
Value all_characters(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a method without parameters", arguments, {});
  std::string_view text = self.string();
  evaluator.charge_text(text.size());
  if (text.empty()) return Value(of_none);
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!holds(c.code_point)) return Value(false);
    text.remove_prefix(c.length);
  }
  return Value(true);
}

template <int flags>
bool has_class(char32_t c) {
  return CharTable::get().has(c, flags);
}
bool is_ascii(char32_t c) {
  return c < 0x80;
}
bool is_printable(char32_t c) {
  return !CharTable::get().has(c, CharTable::kHidden);
}

Value is_space_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("isspace", arguments, {});
  const std::string& text = self.string();
  evaluator.charge_text(text.size());
  return Value(!text.empty() && white_space_prefix(text) == text.size());
}

/// At least one cased character, and none of the other case.
template <std::string (*change)(std::string_view)>
Value is_case(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a method without parameters", arguments, {});
  const std::string& text = self.string();
  evaluator.charge_text(text.size() * 4);
  return Value(change(text) == text && upper(text) != lower(text));
}

bool is_upper_char(std::string_view c) {
  return upper(c) == c && lower(c) != c;
}
bool is_lower_char(std::string_view c) {
  return lower(c) == c && upper(c) != c;
}

/// Words begin in upper case and go on in lower case; at least one.
Value is_title(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("istitle", arguments, {});
  evaluator.charge(self.string().size());
  bool in_word = false;
  bool any = false;
  for (const std::string_view c : chars(self.string())) {
    const bool is_up = is_upper_char(c);
    if ((is_up && in_word) || (is_lower_char(c) && !in_word)) return Value(false);
    in_word = is_up || is_lower_char(c);
    any = any || is_up;
  }
  return Value(any);
}

Value swap_case(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("swapcase", arguments, {});
  evaluator.charge(self.string().size());
  std::string out;
  for (const std::string_view c : chars(self.string())) {
    out += is_upper_char(c) ? lower(c) : is_lower_char(c) ? upper(c) : std::string(c);
  }
  return Value(std::move(out));
}

/// ljust, rjust and center, by `align` < > ^.
template <char align>
Value justify(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("center, ljust or rjust", arguments, {"width", "fillchar"}, 1);
  const int64_t width = bound.integer_or(0, 0);
  require(width <= kMaxWidth, "expected a width of at most {}, found {}", kMaxWidth, width);
  const std::string fill = bound.string_or(1, " ");
  require(char_count(fill) == 1, "The fill character must be exactly one character long");
  const int64_t missing = std::max<int64_t>(width - static_cast<int64_t>(char_count(self.string())), 0);
  // As CPython centers: the odd one goes to the left when the width is odd.
  const int64_t left = align == '<' ? 0 : align == '>' ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.string();
  for (int64_t i = left; i < missing; ++i) out += fill;
  evaluator.charge_text(out.size());
  return Value(std::move(out));
}

Value zero_fill(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const int64_t width = bound.integer_or(0, 0);
  require(width <= kMaxWidth, "expected a width of at most {}, found {}", kMaxWidth, width);
  std::string out = self.string();
  const int64_t missing = std::max<int64_t>(width - static_cast<int64_t>(char_count(out)), 0);
  const bool has_sign = !out.empty() && (out[0] == '+' || out[0] == '-');
  out.insert(has_sign ? 1 : 0, static_cast<size_t>(missing), '0');
  evaluator.charge_text(out.size());
  return Value(std::move(out));
}

Value expand_tabs(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t size = bound.integer_or(0, 8);
  require(size <= kMaxWidth, "expected a tab size of at most {}, found {}", kMaxWidth, size);
  std::string out;
  int64_t column = 0;
  for (const std::string_view c : chars(self.string())) {
    if (c == "\t") {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      evaluator.charge_text(out.size() + static_cast<size_t>(spaces) > evaluator.max_text_bytes()
                                ? evaluator.max_text_bytes() + 1
                                : static_cast<size_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out += c;
      column = c == "\n" || c == "\r" ? 0 : column + 1;
    }
  }
  evaluator.charge_text(out.size());
  return Value(std::move(out));
}

constexpr int kLetterOrNumber = CharTable::kLetter | CharTable::kNumber;

constexpr std::pair<std::string_view, BuiltIn> kMethods[] = {
    {"startswith", starts_or_ends<true>},
    {"endswith", starts_or_ends<false>},
    {"find", find_method<false, false>},
    {"rfind", find_method<true, false>},
    {"index", find_method<false, true>},
    {"rindex", find_method<true, true>},
    {"count", count_method},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"partition", partition<false>},
    {"rpartition", partition<true>},
    {"isalpha", all_characters<has_class<CharTable::kLetter>, false>},
    {"isdigit", all_characters<has_class<CharTable::kNumber>, false>},
    {"isdecimal", all_characters<has_class<CharTable::kNumber>, false>},
    {"isnumeric", all_characters<has_class<CharTable::kNumber>, false>},
    {"isalnum", all_characters<has_class<kLetterOrNumber>, false>},
    {"isascii", all_characters<is_ascii, true>},
    {"isprintable", all_characters<is_printable, true>},
    {"isspace", is_space_method},
    {"isupper", is_case<upper>},
    {"islower", is_case<lower>},
    {"istitle", is_title},
    {"swapcase", swap_case},
    {"center", justify<'^'>},
    {"ljust", justify<'<'>},
    {"rjust", justify<'>'>},
    {"zfill", zero_fill},
    {"expandtabs", expand_tabs},
    {"format", format_braces},
};

}  // namespace

BuiltIn find_more_string_methods(std::string_view name) {
  for (const auto& [known, method] : kMethods) {
    if (known == name) return method;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
