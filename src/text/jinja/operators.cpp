#include <cmath>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_string.h"
#include "text/jinja/string_format.h"

namespace atom::text::jinja {
namespace {

[[noreturn]] void overflow() {
  fail("integers beyond 64 bits are not supported");
}

Value integer_operation(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &result)) overflow();
  } else if (op == "-") {
    if (__builtin_sub_overflow(a, b, &result)) overflow();
  } else if (op == "*") {
    if (__builtin_mul_overflow(a, b, &result)) overflow();
  } else if (op == "**") {
    if (b < 0) {
      require(a != 0, "0 cannot be raised to a negative power");
      return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    }
    result = 1;
    for (int64_t i = 0; i < b && result != 0 && !(a == 1); ++i) {
      if (a == -1) return Value(int64_t{b % 2 == 0 ? 1 : -1});
      if (__builtin_mul_overflow(result, a, &result)) overflow();
    }
  } else {
    require(b != 0, "division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (a == INT64_MIN && b == -1) {
      if (op == "%") return Value(int64_t{0});
      overflow();
    }
    const int64_t remainder = a % b;
    const bool rounds_down = remainder != 0 && (remainder < 0) != (b < 0);
    result = op == "%" ? remainder + (rounds_down ? b : 0) : a / b - (rounds_down ? 1 : 0);
  }
  return Value(result);
}

Value float_operation(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    require(a != 0 || b >= 0, "0.0 cannot be raised to a negative power");
    require(a >= 0 || std::trunc(b) == b, "complex numbers are not supported");
    const double power = std::pow(a, b);
    require(!std::isinf(power) || std::isinf(a) || std::isinf(b), "numerical result out of range");
    return Value(power);
  }
  require(b != 0, "float division by zero");
  if (op == "/") return Value(a / b);
  // As CPython's float_divmod does it.
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (op == "%") return Value(remainder);
  if (quotient == 0) return Value(std::copysign(0.0, a / b));
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return Value(floored);
}

Value repeat(Evaluator& evaluator, const Value& value, int64_t times) {
  if (times < 0) times = 0;
  const auto count = static_cast<size_t>(times);
  const size_t size = value.is_string() ? value.string().size() : value.list().items.size();
  const size_t most = evaluator.max_text_bytes();
  if (size == 0 || count == 0) return value.is_string() ? Value("") : Value::sequence({}, value.list().kind);
  require(count <= most / size, "a repetition grows beyond {} items", most);
  if (value.is_string()) {
    evaluator.charge_text(size * count);
    std::string text;
    text.reserve(size * count);
    for (size_t i = 0; i < count; ++i) text += value.string();
    return value.is_markup() ? Value(Markup{std::move(text)}) : Value(std::move(text));
  }
  evaluator.charge(size * count);
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list().items.begin(), value.list().items.end());
  }
  return Value::sequence(std::move(items), value.list().kind);
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is_sequence(SequenceKind::kList) ||
         value.is_sequence(SequenceKind::kTuple);
}

bool is_integer(const Value& value) {
  return value.is_int() || value.is_bool();
}

}  // namespace

Value binary_operation(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return float_operation(op, a.number(), b.number());
    return integer_operation(op, a.integer(), b.integer());
  }
  if (op == "%" && a.is_string()) return format_percent(evaluator, a, b);
  if (a.is_undefined()) fail("{}", a.undefined_message());
  if (b.is_undefined()) fail("{}", b.undefined_message());
  if (op == "+" && a.is_string() && b.is_string()) {
    if (!a.is_markup() && !b.is_markup()) return evaluator.concat({a, b});
    return Value(Markup{evaluator.concat({escaped(evaluator, a), escaped(evaluator, b)}).string()});
  }
  const bool lists = (a.is_sequence(SequenceKind::kList) && b.is_sequence(SequenceKind::kList)) ||
                     (a.is_sequence(SequenceKind::kTuple) && b.is_sequence(SequenceKind::kTuple));
  if (op == "+" && lists) {
    evaluator.charge(a.list().items.size() + b.list().items.size());
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    return Value::sequence(std::move(items), a.list().kind);
  }
  if (op == "*" && is_repeatable(a) && is_integer(b)) return repeat(evaluator, a, b.integer());
  if (op == "*" && is_integer(a) && is_repeatable(b)) return repeat(evaluator, b, a.integer());
  fail("unsupported operand type(s) for {}: '{}' and '{}'", op, a.type_name(), b.type_name());
}

void charge_key(Evaluator& evaluator, const Value& key) {
  evaluator.charge(key.weight() / 64);
}

bool contains(Evaluator& evaluator, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) fail("'in <string>' requires string as left operand, not Undefined");
    require(item.is_string(), "'in <string>' requires string as left operand, not {}", item.type_name());
    evaluator.charge((container.string().size() + item.string().size()) / 64);
    return find_part(container.string(), item.string()) != std::string_view::npos;
  }
  if (container.is_dict()) {
    charge_key(evaluator, item);
    return container.dict().find(item) != nullptr;
  }
  if (container.is_generator()) {
    Generator& generator = container.generator();
    while (generator.next < generator.items.size()) {
      evaluator.charge(1);
      if (equal(generator.items[generator.next++], item, evaluator.budget())) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  require(container.is_sequence(), "argument of type '{}' is not iterable", container.type_name());
  for (const Value& candidate : container.list().items) {
    evaluator.charge(1);
    if (equal(candidate, item, evaluator.budget())) return true;
  }
  return false;
}

}  // namespace atom::text::jinja
