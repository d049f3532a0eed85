#include <cmath>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

/// Tests of the value alone.
template <bool (*holds)(const Value&)>
Value unary(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Value(holds(self));
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is_bool();
}
bool is_true(const Value& v) {
  return v.is_bool() && v.truth();
}
bool is_false(const Value& v) {
  return v.is_bool() && !v.truth();
}
bool is_integer(const Value& v) {
  return v.is_int();
}
bool is_float(const Value& v) {
  return v.is_float();
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_escaped(const Value& v) {
  return v.is_markup();
}
bool is_mapping(const Value& v) {
  return v.is_dict();
}
bool is_callable(const Value& v) {
  return v.is_function() || v.is_undefined();
}
bool is_iterable(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is_dict() || v.is_generator() || v.is_undefined() ||
         v.is_loop();
}
bool is_sequence(const Value& v) {
  return v.is_string() || v.is_dict() || v.is_undefined() || v.is_sequence(SequenceKind::kList) ||
         v.is_sequence(SequenceKind::kTuple) || v.is_sequence(SequenceKind::kRange);
}
bool is_odd(const Value& v) {
  require(v.is_number(), "odd needs a number, not {}", v.type_name());
  return v.is_float() ? std::abs(std::fmod(v.number(), 2)) == 1 : v.integer() % 2 != 0;
}
bool is_even(const Value& v) {
  require(v.is_number(), "even needs a number, not {}", v.type_name());
  return v.is_float() ? std::fmod(v.number(), 2) == 0 : v.integer() % 2 == 0;
}

template <char op>
Value comparison(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {"other"}, 1);
  const Value& other = *bound.get(0);
  StepBudget& budget = evaluator.budget();
  switch (op) {
    case '=':
      return Value(equal(self, other, budget));
    case '!':
      return Value(!equal(self, other, budget));
    case '<':
      return Value(compare(self, other, "<", budget) < 0);
    case 'l':
      return Value(compare(self, other, "<=", budget) <= 0);
    case '>':
      return Value(compare(self, other, ">", budget) > 0);
    default:
      return Value(compare(self, other, ">=", budget) >= 0);
  }
}

Value is_in(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("in", arguments, {"seq"}, 1);
  return Value(contains(evaluator, *bound.get(0), self));
}

Value divisible_by(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return Value(
      equal(binary_operation(evaluator, "%", self, *bound.get(0)), Value(int64_t{0}), evaluator.budget()));
}

/// Identity. Of numbers, Python's depends on what it keeps in store: small integers are the same everywhere.
Value same_as(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  const Value& other = *bound.get(0);
  if (self.type_name() != other.type_name()) return Value(false);
  if (self.is_sequence()) return Value(&self.list() == &other.list());
  if (self.is_dict()) return Value(&self.dict() == &other.dict());
  const bool small = self.is_int() && self.integer() >= -5 && self.integer() <= 256;
  require(small || !(self.is_int() || self.is_float() || self.is_string()),
          "sameas is not supported for numbers and strings");
  return Value(equal(self, other, evaluator.budget()));
}

template <bool upper_case>
Value is_case(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const BuiltIn method = find_string_method(upper_case ? "isupper" : "islower");
  return method(evaluator, self.is_string() ? self : Value(to_text(self)), arguments);
}

template <BuiltIn (*find)(std::string_view)>
Value exists(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  hash_text(self);  // what cannot be a key is an error
  return Value(self.is_string() && find(self.string()) != nullptr);
}

constexpr std::pair<std::string_view, BuiltIn> kTests[] = {
    {"defined", unary<is_defined>},
    {"undefined", unary<is_undefined>},
    {"none", unary<is_none>},
    {"boolean", unary<is_boolean>},
    {"true", unary<is_true>},
    {"false", unary<is_false>},
    {"integer", unary<is_integer>},
    {"float", unary<is_float>},
    {"number", unary<is_number>},
    {"string", unary<is_string>},
    {"escaped", unary<is_escaped>},
    {"mapping", unary<is_mapping>},
    {"callable", unary<is_callable>},
    {"iterable", unary<is_iterable>},
    {"sequence", unary<is_sequence>},
    {"odd", unary<is_odd>},
    {"even", unary<is_even>},
    {"eq", comparison<'='>},
    {"equalto", comparison<'='>},
    {"==", comparison<'='>},
    {"ne", comparison<'!'>},
    {"!=", comparison<'!'>},
    {"lt", comparison<'<'>},
    {"lessthan", comparison<'<'>},
    {"<", comparison<'<'>},
    {"le", comparison<'l'>},
    {"<=", comparison<'l'>},
    {"gt", comparison<'>'>},
    {"greaterthan", comparison<'>'>},
    {">", comparison<'>'>},
    {"ge", comparison<'g'>},
    {">=", comparison<'g'>},
    {"in", is_in},
    {"divisibleby", divisible_by},
    {"sameas", same_as},
    {"upper", is_case<true>},
    {"lower", is_case<false>},
    {"filter", exists<find_filter>},
    {"test", exists<find_test>},
};

}  // namespace

BuiltIn find_test(std::string_view name) {
  for (const auto& [known, test] : kTests) {
    if (known == name) return test;
  }
  return nullptr;
}

}  // namespace atom::text::jinja
