#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/function.h"
#include "text/jinja/python_string.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

template <size_t N>
BuiltIn find_in(const std::pair<std::string_view, BuiltIn> (&table)[N], std::string_view name) {
  for (const auto& [known, built_in] : table) {
    if (known == name) return built_in;
  }
  return nullptr;
}

Value list_of_texts(Evaluator& evaluator, const std::vector<std::string_view>& parts) {
  evaluator.charge(parts.size());
  std::vector<Value> items;
  for (const std::string_view part : parts) items.emplace_back(part);
  return Value::sequence(std::move(items));
}

/// strip, lstrip and rstrip: which ends, by `left` and `right`.
template <bool left, bool right>
Value strip(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  std::string_view text = self.string();
  evaluator.charge_text(text.size());
  if (bound.get(0) == nullptr || bound.get(0)->is_none()) {
    if (left) text = strip_white_space_left(text);
    if (right) text = strip_white_space_right(text);
  } else {
    const std::string set = bound.string_or(0, "");
    if (left) text = strip_left(text, set);
    if (right) text = strip_right(text, set);
  }
  return Value(text);
}

template <bool from_right>
Value split_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const int64_t limit = bound.integer_or(1, -1);
  evaluator.charge_text(self.string().size());
  if (bound.get(0) == nullptr || bound.get(0)->is_none()) {
    require(!from_right || limit < 0, "rsplit() at white space with a limit is not supported");
    return list_of_texts(evaluator, split_white_space(self.string(), limit));
  }
  const std::string separator = bound.string_or(0, "");
  require(!separator.empty(), "empty separator");
  return list_of_texts(evaluator, from_right ? split_right(self.string(), separator, limit)
                                             : split(self.string(), separator, limit));
}

Value split_lines_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  evaluator.charge_text(self.string().size());
  return list_of_texts(evaluator, split_lines(self.string(), bound.get_or(0, Value(false)).truth()));
}

template <bool at_start>
Value starts_or_ends(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound(at_start ? "startswith" : "endswith", arguments, {"prefix"}, 1);
  const Value& affixes = *bound.get(0);
  const auto matches = [&](const Value& affix) {
    require(affix.is_string(), "expected a string or a tuple of strings, found {}", affix.type_name());
    const std::string_view text = self.string();
    return at_start ? text.starts_with(affix.string()) : text.ends_with(affix.string());
  };
  if (!affixes.is_sequence(SequenceKind::kTuple)) return Value(matches(affixes));
  return Value(std::any_of(affixes.list().items.begin(), affixes.list().items.end(), matches));
}

template <std::string (*change)(std::string_view)>
Value mapped(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a method without parameters", arguments, {});
  evaluator.charge_text(self.string().size());
  return Value(change(self.string()));
}

Value replace_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  std::string text = replace(self.string(), bound.string_or(0, ""), bound.string_or(1, ""),
                             bound.integer_or(2, -1), evaluator.max_text_bytes());
  evaluator.charge_text(text.size() + self.string().size());
  return Value(std::move(text));
}

template <bool from_right, bool must_exist>
Value find_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("find", arguments, {"sub"}, 1);
  const std::string_view text = self.string();
  evaluator.charge_text(text.size());
  const std::string part = bound.string_or(0, "");
  const size_t found = from_right ? text.rfind(part) : text.find(part);
  require(!must_exist || found != std::string_view::npos, "substring not found");
  return Value(found == std::string_view::npos ? int64_t{-1}
                                               : static_cast<int64_t>(char_count(text.substr(0, found))));
}

Value count_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"sub"}, 1);
  const std::string_view text = self.string();
  evaluator.charge_text(text.size());
  const std::string part = bound.string_or(0, "");
  if (part.empty()) return Value(static_cast<int64_t>(char_count(text)) + 1);
  return Value(static_cast<int64_t>(split(text, part, -1).size()) - 1);
}

Value join_method(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  std::vector<Value> parts;
  for (const Value& item : evaluator.items_of(*bound.get(0))) {
    require(item.is_string(), "join(): expected strings, found {}", item.type_name());
    if (!parts.empty()) parts.push_back(self);
    parts.push_back(item);
  }
  return evaluator.concat(parts);
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

/// Whether all characters (at least one) have one of `flags`.
template <int flags>
Value all_of_class(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a method without parameters", arguments, {});
  std::string_view text = self.string();
  evaluator.charge_text(text.size());
  if (text.empty()) return Value(false);
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!CharTable::get().has(c.code_point, flags)) return Value(false);
    text.remove_prefix(c.length);
  }
  return Value(true);
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

Value dict_get(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  const Value* value = self.dict().find(*bound.get(0));
  return value != nullptr ? *value : bound.get_or(1, Value());
}

template <SequenceKind kind>
Value dict_view(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a method without parameters", arguments, {});
  evaluator.charge(self.dict().size() * 2);
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().items()) {
    if (kind == SequenceKind::kKeys) items.push_back(key);
    if (kind == SequenceKind::kValues) items.push_back(value);
    if (kind == SequenceKind::kItems) items.push_back(Value::sequence({key, value}, SequenceKind::kTuple));
  }
  return Value::sequence(std::move(items), kind);
}

Value dict_copy(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;
}

Value sequence_count(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"value"}, 1);
  const auto& items = self.list().items;
  evaluator.charge(items.size());
  return Value(static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
    return equal(item, *bound.get(0), evaluator.budget());
  })));
}

Value sequence_index(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("index", arguments, {"value"}, 1);
  const auto& items = self.list().items;
  evaluator.charge(items.size());
  const auto it = std::find_if(items.begin(), items.end(), [&](const Value& item) {
    return equal(item, *bound.get(0), evaluator.budget());
  });
  require(it != items.end(), "the value is not in the list");
  return Value(static_cast<int64_t>(it - items.begin()));
}

constexpr std::pair<std::string_view, BuiltIn> kStringMethods[] = {
    {"strip", strip<true, true>},
    {"lstrip", strip<true, false>},
    {"rstrip", strip<false, true>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines", split_lines_method},
    {"startswith", starts_or_ends<true>},
    {"endswith", starts_or_ends<false>},
    {"upper", mapped<upper>},
    {"lower", mapped<lower>},
    {"title", mapped<title>},
    {"capitalize", mapped<capitalize>},
    {"replace", replace_method},
    {"find", find_method<false, false>},
    {"rfind", find_method<true, false>},
    {"index", find_method<false, true>},
    {"rindex", find_method<true, true>},
    {"count", count_method},
    {"join", join_method},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"isalpha", all_of_class<CharTable::kLetter>},
    {"isdigit", all_of_class<CharTable::kNumber>},
    {"isdecimal", all_of_class<CharTable::kNumber>},
    {"isnumeric", all_of_class<CharTable::kNumber>},
    {"isalnum", all_of_class<CharTable::kLetter | CharTable::kNumber>},
    {"isspace", is_space_method},
    {"isupper", is_case<upper>},
    {"islower", is_case<lower>},
};

constexpr std::pair<std::string_view, BuiltIn> kDictMethods[] = {
    {"get", dict_get},
    {"keys", dict_view<SequenceKind::kKeys>},
    {"values", dict_view<SequenceKind::kValues>},
    {"items", dict_view<SequenceKind::kItems>},
    {"copy", dict_copy},
};

constexpr std::string_view kUnsupportedStringMethods[] = {
    "casefold",  "center",       "encode",      "expandtabs", "format",    "format_map",
    "isascii",   "isidentifier", "isprintable", "istitle",    "ljust",     "maketrans",
    "partition", "rjust",        "rpartition",  "swapcase",   "translate", "zfill",
};
constexpr std::string_view kUnsupportedNumberMethods[] = {
    "real",       "imag",      "numerator",        "denominator", "bit_length",
    "bit_count",  "conjugate", "as_integer_ratio", "to_bytes",    "from_bytes",
    "is_integer", "hex",       "fromhex",
};

}  // namespace

BuiltIn find_string_method(std::string_view name) {
  return find_in(kStringMethods, name);
}

BuiltIn find_dict_method(std::string_view name) {
  return find_in(kDictMethods, name);
}

BuiltIn find_sequence_method(const Value& value, std::string_view name) {
  const bool has_methods = value.is_sequence(SequenceKind::kList) || value.is_sequence(SequenceKind::kTuple);
  if (has_methods && name == "count") return sequence_count;
  if (has_methods && name == "index") return sequence_index;
  return nullptr;
}

bool is_unsupported_method(const Value& value, std::string_view name) {
  const auto is_in = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (value.is_string()) return is_in(kUnsupportedStringMethods);
  if (value.is_number()) return is_in(kUnsupportedNumberMethods);
  if (value.is_dict()) return name == "fromkeys";
  if (value.is_sequence(SequenceKind::kList)) return name == "copy";
  if (value.is_sequence(SequenceKind::kRange))
    return name == "start" || name == "stop" || name == "step" || name == "count" || name == "index";
  if (value.is_sequence()) return name == "isdisjoint" || name == "mapping";
  return value.is_function() && (name == "name" || name == "arguments" || name == "catch_kwargs" ||
                                 name == "catch_varargs" || name == "caller");
}

}  // namespace atom::text::jinja
