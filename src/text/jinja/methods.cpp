#include <algorithm>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/function.h"
#include "text/jinja/python_string.h"
#include "text/jinja/string_methods.h"

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
  evaluator.charge(parts.size() * kStepsPerText);
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
    return list_of_texts(evaluator, from_right ? split_white_space_right(self.string(), limit)
                                               : split_white_space(self.string(), limit));
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

Value dict_get(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  charge_key(evaluator, *bound.get(0));
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

/// Lists do not change, so a copy is the list.
Value sequence_copy(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;
}

constexpr std::pair<std::string_view, BuiltIn> kStringMethods[] = {
    {"strip", strip<true, true>},       {"lstrip", strip<true, false>}, {"rstrip", strip<false, true>},
    {"split", split_method<false>},     {"rsplit", split_method<true>}, {"splitlines", split_lines_method},
    {"upper", mapped<upper>},           {"lower", mapped<lower>},       {"title", mapped<title>},
    {"capitalize", mapped<capitalize>}, {"replace", replace_method},    {"join", join_method},
};

constexpr std::pair<std::string_view, BuiltIn> kDictMethods[] = {
    {"get", dict_get},
    {"keys", dict_view<SequenceKind::kKeys>},
    {"values", dict_view<SequenceKind::kValues>},
    {"items", dict_view<SequenceKind::kItems>},
    {"copy", dict_copy},
};

constexpr std::string_view kUnsupportedStringMethods[] = {
    "casefold", "encode", "format_map", "isidentifier", "maketrans", "translate",
};
constexpr std::string_view kUnsupportedNumberMethods[] = {
    "real",       "imag",      "numerator",        "denominator", "bit_length",
    "bit_count",  "conjugate", "as_integer_ratio", "to_bytes",    "from_bytes",
    "is_integer", "hex",       "fromhex",
};

}  // namespace

BuiltIn find_string_method(std::string_view name) {
  const BuiltIn method = find_in(kStringMethods, name);
  return method != nullptr ? method : find_more_string_methods(name);
}

BuiltIn find_dict_method(std::string_view name) {
  return find_in(kDictMethods, name);
}

BuiltIn find_sequence_method(const Value& value, std::string_view name) {
  if (value.is_sequence(SequenceKind::kList) && name == "copy") return sequence_copy;
  const bool has_methods = value.is_sequence(SequenceKind::kList) ||
                           value.is_sequence(SequenceKind::kTuple) || value.is_sequence(SequenceKind::kRange);
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
  if (value.is_sequence(SequenceKind::kList)) return false;
  if (value.is_sequence(SequenceKind::kRange)) return name == "start" || name == "stop" || name == "step";
  if (value.is_sequence()) return name == "isdisjoint" || name == "mapping";
  return value.is_function() && (name == "name" || name == "arguments" || name == "catch_kwargs" ||
                                 name == "catch_varargs" || name == "caller");
}

}  // namespace atom::text::jinja
