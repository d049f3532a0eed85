#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/jinja/function.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr size_t kIndexFrom = 16;

int checked_depth(int depth) {
  require(depth <= kMaxValueDepth, "a value is nested deeper than {} levels", kMaxValueDepth);
  return depth;
}

size_t checked_weight(size_t weight) {
  require(weight <= kMaxValueWeight, "a value grows beyond {} bytes", kMaxValueWeight);
  return weight;
}

std::string valid_text(const std::string& text) {
  return is_valid_utf8(text) ? text : lossy_utf8(text);
}

bool both_numbers(const Value& a, const Value& b) {
  return a.is_number() && b.is_number();
}

int compare_numbers(const Value& a, const Value& b) {
  // Integers are compared as such; beyond 2^53 an integer and a float are compared as floats.
  if (!a.is_float() && !b.is_float()) return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  const double x = a.number();
  const double y = b.number();
  return x < y ? -1 : x > y ? 1 : 0;
}

bool equal_sequences(const Sequence& a, const Sequence& b, StepBudget& budget) {
  const bool comparable = a.kind == b.kind;
  return comparable && a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(),
                    [&](const Value& x, const Value& y) { return equal(x, y, budget); });
}

/// Texts are compared 64 bytes a step.
void charge_texts(const std::string& a, const std::string& b, StepBudget& budget) {
  constexpr size_t kBytesPerStep = 64;
  budget.charge(std::min(a.size(), b.size()) / kBytesPerStep);
}

}  // namespace

const Value* Dict::find_hashed(const std::string& hash) const {
  if (index_.empty()) {
    const auto it = std::find(hashes_.begin(), hashes_.end(), hash);
    return it == hashes_.end() ? nullptr : &items_[static_cast<size_t>(it - hashes_.begin())].second;
  }
  const auto it = index_.find(hash);
  return it == index_.end() ? nullptr : &items_[it->second].second;
}

const Value* Dict::find(const Value& key) const {
  return find_hashed(hash_text(key));
}

const Value* Dict::find_text(std::string_view key) const {
  return find_hashed(std::string(1, 's').append(key));
}

void Dict::set(Value key, Value value) {
  depth_ = std::max(depth_, checked_depth(1 + std::max(key.depth(), value.depth())));
  weight_ = checked_weight(weight_ + key.weight() + value.weight());
  std::string hash = hash_text(key);
  if (const Value* known = find_hashed(hash)) {
    *const_cast<Value*>(known) = std::move(value);
    return;
  }
  items_.emplace_back(std::move(key), std::move(value));
  if (!index_.empty()) index_.emplace(hash, items_.size() - 1);
  hashes_.push_back(std::move(hash));
  if (hashes_.size() == kIndexFrom) {
    for (size_t i = 0; i < hashes_.size(); ++i) index_.emplace(hashes_[i], i);
  }
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value Value::sequence(std::vector<Value> items, SequenceKind kind) {
  Sequence sequence;
  sequence.kind = kind;
  for (const Value& item : items) sequence.depth = std::max(sequence.depth, 1 + item.depth());
  checked_depth(sequence.depth);
  for (const Value& item : items) sequence.weight = checked_weight(sequence.weight + item.weight());
  sequence.items = std::move(items);
  return Value(std::make_shared<const Sequence>(std::move(sequence)));
}

Value Value::range(int64_t start, int64_t stop, int64_t step, std::vector<Value> items) {
  Sequence sequence{SequenceKind::kRange, std::move(items)};
  sequence.start = start;
  sequence.stop = stop;
  sequence.step = step;
  return Value(std::make_shared<const Sequence>(std::move(sequence)));
}

Value Value::from_json(const nlohmann::ordered_json& json, int depth) {
  checked_depth(depth);
  switch (json.type()) {
    case nlohmann::json::value_t::null:
      return Value();
    case nlohmann::json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      require(number <= static_cast<uint64_t>(INT64_MAX), "expected integers of at most 63 bits, found {}",
              number);
      return Value(static_cast<int64_t>(number));
    }
    case nlohmann::json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::json::value_t::string:
      return Value(valid_text(json.get_ref<const std::string&>()));
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return sequence(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items())
        dict.set(Value(valid_text(key)), from_json(item, depth + 1));
      return Value(std::move(dict));
    }
    default:
      fail("expected JSON values, found binary data");
  }
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool() || is_int()) return integer() != 0;
  if (is_float()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_sequence()) return !list().items.empty();
  if (is_dict()) return dict().size() != 0;
  return true;
}

int Value::depth() const {
  if (is_sequence()) return list().depth;
  if (is_dict()) return dict().depth();
  if (is_function()) return 1 + function().self.depth();
  return 0;
}

size_t Value::weight() const {
  if (is_string()) return 2 + string().size();
  if (is_sequence()) return list().weight;
  if (is_dict()) return dict().weight();
  if (is_function()) return 1 + function().self.weight();
  return 1;
}

std::string Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return is_markup() ? "Markup" : "str";
  if (is_dict()) return "dict";
  if (is_namespace()) return "Namespace";
  if (is_loop()) return "LoopContext";
  if (is_generator()) return "generator";
  if (is_function()) return "function";
  switch (list().kind) {
    case SequenceKind::kList:
      return "list";
    case SequenceKind::kTuple:
      return "tuple";
    case SequenceKind::kKeys:
      return "dict_keys";
    case SequenceKind::kValues:
      return "dict_values";
    case SequenceKind::kItems:
      return "dict_items";
    case SequenceKind::kRange:
      return "range";
  }
  return "list";
}

void StepBudget::charge(size_t steps) {
  require(steps <= left_, "the template does not end within {} steps", limit_);
  left_ -= steps;
}

bool equal(const Value& a, const Value& b, StepBudget& budget) {
  budget.charge(1);
  if (both_numbers(a, b)) {
    const bool unordered = std::isnan(a.number()) || std::isnan(b.number());
    return !unordered && compare_numbers(a, b) == 0;
  }
  if (a.is_string() && b.is_string()) {
    charge_texts(a.string(), b.string(), budget);
    return a.string() == b.string();
  }
  if (a.is_none() && b.is_none()) return true;
  if (a.is_undefined() && b.is_undefined()) return true;
  if (a.is_sequence() && b.is_sequence()) return equal_sequences(a.list(), b.list(), budget);
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().size() != b.dict().size()) return false;
    for (const auto& [key, value] : a.dict().items()) {
      const Value* other = b.dict().find(key);
      if (other == nullptr || !equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (a.is_namespace() && b.is_namespace()) return &a.name_space() == &b.name_space();
  if (a.is_loop() && b.is_loop()) return &a.loop() == &b.loop();
  if (a.is_generator() && b.is_generator()) return &a.generator() == &b.generator();
  if (a.is_function() && b.is_function()) return &a.function() == &b.function();
  return false;
}

int compare(const Value& a, const Value& b, std::string_view operation, StepBudget& budget) {
  if (both_numbers(a, b)) {
    require(!std::isnan(a.number()) && !std::isnan(b.number()), "'{}' with a number that is not one (NaN)",
            operation);
    return compare_numbers(a, b);
  }
  // UTF-8 orders like code points.
  if (a.is_string() && b.is_string()) {
    charge_texts(a.string(), b.string(), budget);
    return a.string().compare(b.string());
  }
  const bool lists = (a.is_sequence(SequenceKind::kList) && b.is_sequence(SequenceKind::kList)) ||
                     (a.is_sequence(SequenceKind::kTuple) && b.is_sequence(SequenceKind::kTuple));
  if (lists) {
    const auto& x = a.list().items;
    const auto& y = b.list().items;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(x[i], y[i], budget)) return compare(x[i], y[i], operation, budget);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  if (a.is_undefined()) fail("{}", a.undefined_message());
  if (b.is_undefined()) fail("{}", b.undefined_message());
  fail("'{}' not supported between '{}' and '{}'", operation, a.type_name(), b.type_name());
}

std::string hash_text(const Value& key) {
  if (key.is_string()) return "s" + key.string();
  if (key.is_number()) {
    const double number = key.number();
    const bool whole = !key.is_float() || (std::trunc(number) == number && std::abs(number) < 9e15);
    if (whole) return fmt::format("n{}", key.is_float() ? static_cast<int64_t>(number) : key.integer());
    return fmt::format("n{}", number);
  }
  if (key.is_none()) return "0";
  if (key.is_undefined()) return "u";
  if (key.is_sequence(SequenceKind::kTuple) || key.is_sequence(SequenceKind::kRange)) {
    std::string text = key.is_sequence(SequenceKind::kTuple) ? "(" : "r(";
    for (const Value& item : key.list().items) {
      const std::string hash = hash_text(item);
      text += fmt::format("{}:{}", hash.size(), hash);
    }
    return text;
  }
  fail("unhashable type: '{}'", key.type_name());
}

}  // namespace atom::text::jinja
