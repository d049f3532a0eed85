#include "text/jinja/filters_sequence.h"

#include <algorithm>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

/// Follows `path`, an attribute such as `a.b.0` or an index, from an item.
Value follow(Evaluator& evaluator, const Value& item, const Value& path, const Value* fallback = nullptr) {
  std::vector<Value> steps;
  if (path.is_string()) {
    for (const std::string_view part : split(path.string(), ".", -1)) {
      const bool digits =
          !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos && part.size() < 18;
      steps.push_back(digits ? Value(static_cast<int64_t>(std::stoll(std::string(part)))) : Value(part));
    }
  } else {
    require(path.is_int(), "expected an attribute name or an index, found {}", path.type_name());
    steps.push_back(path);
  }
  Value value = item;
  for (const Value& step : steps) {
    evaluator.charge(1);
    value = evaluator.get_item(value, step);
    if (fallback != nullptr && value.is_undefined()) value = *fallback;
  }
  return value;
}

bool given(const Value* argument) {
  return argument != nullptr && !argument->is_none();
}

/// What sorting and comparing go by: the item or an attribute of it, in lower case unless `case_sensitive`.
Value sort_key(Evaluator& evaluator, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = given(attribute) ? follow(evaluator, item, *attribute) : item;
  if (key.is_string() && !case_sensitive) {
    evaluator.charge_text(key.string().size());
    key = Value(lower(key.string()));
  }
  return key;
}

/// Items of a value that map() and select() take: nothing of what is false.
std::vector<Value> items_if_true(Evaluator& evaluator, const Value& value) {
  if (!value.truth()) return {};
  return evaluator.items_of(value);
}

Value length(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("length", arguments, {});
  if (self.is_undefined()) return Value(int64_t{0});
  if (self.is_string()) {
    evaluator.charge_text(self.string().size());
    return Value(static_cast<int64_t>(char_count(self.string())));
  }
  if (self.is_sequence()) return Value(static_cast<int64_t>(self.list().items.size()));
  if (self.is_dict()) return Value(static_cast<int64_t>(self.dict().size()));
  if (self.is_loop()) return Value(self.loop().length());
  fail("object of type '{}' has no len()", self.type_name());
}

Value first(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("first", arguments, {});
  if (self.is_generator()) {
    Generator& generator = self.generator();
    if (generator.next < generator.items.size()) return generator.items[generator.next++];
    return Value::undefined("No first item, sequence was empty.");
  }
  const std::vector<Value> items = evaluator.items_of(self);
  evaluator.charge(items.size());
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("last", arguments, {});
  require(!self.is_generator(), "'generator' object is not reversible");
  const std::vector<Value> items = evaluator.items_of(self);
  evaluator.charge(items.size());
  if (self.is_markup() && !items.empty()) return like(self, items.back().string());
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value join(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const Value separator(to_text(bound.get_or(0, Value(""))));
  std::vector<Value> parts;
  for (const Value& item : evaluator.items_of(self)) {
    evaluator.charge(1);
    if (!parts.empty()) parts.push_back(separator);
    parts.push_back(given(bound.get(1)) ? follow(evaluator, item, *bound.get(1)) : item);
  }
  return evaluator.concat(parts);
}

Value list(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("list", arguments, {});
  std::vector<Value> items = evaluator.items_of(self);
  evaluator.charge(items.size());
  return Value::sequence(std::move(items));
}

Value items_filter(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("items", arguments, {});
  if (self.is_undefined()) return evaluator.make_generator({});
  require(self.is_dict(), "Can only get item pairs from a mapping.");
  return evaluator.make_generator(find_dict_method("items")(evaluator, self, {}).list().items);
}

Value reverse(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  std::vector<Value> items = evaluator.items_of(self);
  std::reverse(items.begin(), items.end());
  if (self.is_string()) return like(self, evaluator.concat(items).string());
  evaluator.charge(items.size());
  return self.is_generator() ? Value::sequence(std::move(items)) : evaluator.make_generator(std::move(items));
}

Value map(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const Bound bound("map", arguments, {"attribute", "default"}, 1);
    const Value* fallback = given(bound.get(1)) ? bound.get(1) : nullptr;
    for (const Value& item : items_if_true(evaluator, self)) {
      out.push_back(follow(evaluator, item, *bound.get(0), fallback));
    }
    return evaluator.make_generator(std::move(out));
  }
  const Value& name = arguments.positional[0];
  const BuiltIn filter = name.is_string() ? find_filter(name.string()) : nullptr;
  require(filter != nullptr, "map(): no filter named '{}' is supported", printable(to_text(name)));
  const Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
  for (const Value& item : items_if_true(evaluator, self)) {
    evaluator.charge(1);
    out.push_back(filter(evaluator, item, rest));
  }
  return evaluator.make_generator(std::move(out));
}

/// select, reject, selectattr and rejectattr.
template <bool by_attribute, bool keep>
Value select(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const size_t skip = by_attribute ? 1 : 0;
  const auto& positional = arguments.positional;
  require(positional.size() >= skip, "Missing parameter for attribute name");
  BuiltIn test = nullptr;
  Arguments rest;
  if (positional.size() > skip) {
    const Value& name = positional[skip];
    test = name.is_string() ? find_test(name.string()) : nullptr;
    require(test != nullptr, "no test named '{}' is supported", printable(to_text(name)));
    rest = {{positional.begin() + static_cast<std::ptrdiff_t>(skip) + 1, positional.end()}, arguments.named};
  }
  std::vector<Value> out;
  for (const Value& item : items_if_true(evaluator, self)) {
    evaluator.charge(1);
    const Value value = by_attribute ? follow(evaluator, item, positional[0]) : item;
    const bool holds = test != nullptr ? test(evaluator, value, rest).truth() : value.truth();
    if (holds == keep) out.push_back(item);
  }
  return evaluator.make_generator(std::move(out));
}

/// Stable; with `reverse`, equal items keep their order too, as in Python.
void sort_by(Evaluator& evaluator, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    StepBudget& budget = evaluator.budget();
    return reverse ? compare(b.first, a.first, "<", budget) < 0 : compare(a.first, b.first, "<", budget) < 0;
  });
}

/// Sorting calls for steps too: about as many as it compares.
void charge_sort(Evaluator& evaluator, size_t count) {
  size_t levels = 1;
  while ((count >> levels) != 0) ++levels;
  evaluator.charge(count * (levels + 8));
}

Value sort(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  // The key is a list, of one value for each of the attributes that commas part.
  std::vector<Value> attributes;
  if (given(bound.get(2)) && bound.get(2)->is_string()) {
    for (const std::string_view part : split(bound.get(2)->string(), ",", -1)) attributes.emplace_back(part);
  } else {
    attributes.push_back(bound.get_or(2, Value()));
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : evaluator.items_of(self)) {
    std::vector<Value> key;
    for (const Value& attribute : attributes)
      key.push_back(sort_key(evaluator, item, &attribute, bound.get_or(1, Value(false)).truth()));
    keyed.emplace_back(Value::sequence(std::move(key)), item);
  }
  charge_sort(evaluator, keyed.size());
  sort_by(evaluator, keyed, bound.get_or(0, Value(false)).truth());
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::sequence(std::move(items));
}

Value dictsort(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.string_or(1, "key");
  require(by == "key" || by == "value", "You can only sort by either \"key\" or \"value\"");
  if (self.is_undefined()) fail("{}", self.undefined_message());
  require(self.is_dict(), "dictsort(): expected a dictionary, found {}", self.type_name());
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : self.dict().items()) {
    keyed.emplace_back(
        sort_key(evaluator, by == "key" ? key : value, nullptr, bound.get_or(0, Value(false)).truth()),
        Value::sequence({key, value}, SequenceKind::kTuple));
  }
  charge_sort(evaluator, keyed.size());
  sort_by(evaluator, keyed, bound.get_or(2, Value(false)).truth());
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::sequence(std::move(items));
}

/// Lists of `count` items each; the last one is filled up where there is something to fill with.
Value batch(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t count = bound.integer_or(0, 0);
  std::vector<Value> out;
  std::vector<Value> row;
  for (Value& item : evaluator.items_of(self)) {
    evaluator.charge(1);
    if (static_cast<int64_t>(row.size()) == count) out.push_back(Value::sequence(std::exchange(row, {})));
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    if (given(bound.get(1)) && static_cast<int64_t>(row.size()) < count) {
      evaluator.charge(static_cast<size_t>(count));
      row.resize(static_cast<size_t>(count), *bound.get(1));
    }
    out.push_back(Value::sequence(std::move(row)));
  }
  return evaluator.make_generator(std::move(out));
}

/// `count` lists of as many items each as can be, the longer ones first.
Value slice(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t count = bound.integer_or(0, 0);
  require(count != 0, "division by zero");
  const std::vector<Value> items = evaluator.items_of(self);
  evaluator.charge(items.size() + 8 * static_cast<size_t>(std::clamp<int64_t>(count, 0, int64_t{1} << 40)));
  std::vector<Value> out;
  size_t next = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto size = static_cast<int64_t>(items.size());
    const bool longer = i < size % count;
    std::vector<Value> part;
    for (int64_t k = 0; k < size / count + (longer ? 1 : 0); ++k) part.push_back(items[next++]);
    if (given(bound.get(1)) && !longer) part.push_back(*bound.get(1));
    out.push_back(Value::sequence(std::move(part)));
  }
  return evaluator.make_generator(std::move(out));
}

/// Sorted by an attribute, then parted where it changes: tuples of the attribute and a list.
Value group_by(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const bool case_sensitive = bound.get_or(2, Value(false)).truth();
  const Value* fallback = given(bound.get(1)) ? bound.get(1) : nullptr;
  struct Item {
    Value found;  // the attribute as it is
    Value value;
  };
  std::vector<Item> items;
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : evaluator.items_of(self)) {
    Value found = follow(evaluator, item, *bound.get(0), fallback);
    keyed.emplace_back(sort_key(evaluator, found, nullptr, case_sensitive),
                       Value(static_cast<int64_t>(items.size())));
    items.push_back({std::move(found), item});
  }
  charge_sort(evaluator, keyed.size());
  sort_by(evaluator, keyed, false);
  std::vector<Value> out;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> group;
    size_t end = begin;
    for (; end < keyed.size() && equal(keyed[end].first, keyed[begin].first, evaluator.budget()); ++end)
      group.push_back(items[static_cast<size_t>(keyed[end].second.integer())].value);
    const Item& first = items[static_cast<size_t>(keyed[begin].second.integer())];
    Sequence pair{SequenceKind::kTuple,
                  {case_sensitive ? keyed[begin].first : first.found, Value::sequence(std::move(group))}};
    pair.depth = 1 + std::max(pair.items[0].depth(), pair.items[1].depth());
    pair.is_group = true;
    out.emplace_back(std::make_shared<const Sequence>(std::move(pair)));
    begin = std::max(end, begin + 1);
  }
  return Value::sequence(std::move(out));
}

template <bool largest>
Value extreme(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const bool case_sensitive = bound.get_or(0, Value(false)).truth();
  Value best = Value::undefined("No aggregated item, sequence was empty.");
  Value best_key;
  bool any = false;
  for (const Value& item : evaluator.items_of(self)) {
    evaluator.charge(1);
    Value key = sort_key(evaluator, item, bound.get(1), case_sensitive);
    const bool better = !any || (largest ? compare(key, best_key, ">", evaluator.budget()) > 0
                                         : compare(key, best_key, "<", evaluator.budget()) < 0);
    if (!better) continue;
    best = item;
    best_key = std::move(key);
    any = true;
  }
  return best;
}

Value unique(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> out;
  Dict seen;
  for (const Value& item : evaluator.items_of(self)) {
    evaluator.charge(1);
    Value key = sort_key(evaluator, item, bound.get(1), bound.get_or(0, Value(false)).truth());
    charge_key(evaluator, key);
    if (seen.find(key) != nullptr) continue;
    seen.set(std::move(key), Value());
    out.push_back(item);
  }
  return evaluator.make_generator(std::move(out));
}

Value sum(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  Value total = bound.get_or(1, Value(int64_t{0}));
  require(!total.is_string(), "sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : evaluator.items_of(self)) {
    evaluator.charge(1);
    total = binary_operation(evaluator, "+", total,
                             given(bound.get(0)) ? follow(evaluator, item, *bound.get(0)) : item);
  }
  return total;
}

constexpr std::pair<std::string_view, BuiltIn> kFilters[] = {
    {"length", length},
    {"count", length},
    {"first", first},
    {"last", last},
    {"join", join},
    {"list", list},
    {"items", items_filter},
    {"reverse", reverse},
    {"map", map},
    {"select", select<false, true>},
    {"reject", select<false, false>},
    {"selectattr", select<true, true>},
    {"rejectattr", select<true, false>},
    {"sort", sort},
    {"dictsort", dictsort},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"unique", unique},
    {"batch", batch},
    {"slice", slice},
    {"groupby", group_by},
    {"sum", sum},
};

}  // namespace

BuiltIn find_sequence_filter(std::string_view name) {
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
