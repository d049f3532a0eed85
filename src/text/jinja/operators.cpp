#include <cmath>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"

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
    return Value(std::move(text));
  }
  evaluator.charge(size * count);
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list().items.begin(), value.list().items.end());
  }
  return Value::sequence(std::move(items), value.list().kind);
}

/// Python's text % values, with %s, %d, %i, %r and %%.
Value format_text(Evaluator& evaluator, const std::string& format, const Value& argument) {
  std::vector<Value> values{argument};
  if (argument.is_sequence(SequenceKind::kTuple)) values = argument.list().items;
  std::string out;
  size_t used = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    require(++i < format.size(), "incomplete format");
    const char kind = format[i];
    if (kind == '%') {
      out += '%';
      continue;
    }
    require(kind == 's' || kind == 'd' || kind == 'i' || kind == 'r', "the format '%{}' is not supported",
            printable(std::string(1, kind)));
    require(used < values.size(), "not enough arguments for format string");
    const Value& value = values[used++];
    if (kind == 's') {
      out += to_text(value);
    } else if (kind == 'r') {
      out += to_repr(value);
    } else {
      require(value.is_number(), "%{} format: a real number is required, not {}", kind, value.type_name());
      require(std::abs(value.number()) < 9e18, "integers beyond 64 bits are not supported");
      out += fmt::format("{}", value.is_float() ? static_cast<int64_t>(value.number()) : value.integer());
    }
    evaluator.charge_text(out.size() > evaluator.max_text_bytes() ? out.size() : 0);
  }
  require(used == values.size() || argument.is_dict() ||
              (!argument.is_sequence(SequenceKind::kTuple) && argument.is_sequence()),
          "not all arguments converted during string formatting");
  evaluator.charge_text(out.size());
  return Value(std::move(out));
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
  if (op == "%" && a.is_string()) return format_text(evaluator, a.string(), b);
  if (a.is_undefined()) fail("{}", a.undefined_message());
  if (b.is_undefined()) fail("{}", b.undefined_message());
  if (op == "+" && a.is_string() && b.is_string()) return evaluator.concat({a, b});
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

bool contains(Evaluator& evaluator, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) fail("'in <string>' requires string as left operand, not Undefined");
    require(item.is_string(), "'in <string>' requires string as left operand, not {}", item.type_name());
    evaluator.charge(container.string().size() / 64);
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_dict()) return container.dict().find(item) != nullptr;
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
