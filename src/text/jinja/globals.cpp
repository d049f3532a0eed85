#include <ctime>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"

namespace atom::text::jinja {
namespace {

// Jinja's sandbox refuses longer ones.
constexpr int64_t kMaxRange = 100'000;

Value range(Evaluator& evaluator, const Value&, const Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  require(arguments.named.empty(), "range() takes no keyword arguments");
  const bool single = bound.get(1) == nullptr;
  const int64_t start = single ? 0 : bound.integer_or(0, 0);
  const int64_t stop = single ? bound.integer_or(0, 0) : bound.integer_or(1, 0);
  const int64_t step = bound.integer_or(2, 1);
  require(step != 0, "range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    require(static_cast<int64_t>(items.size()) < kMaxRange,
            "Range too big. The sandbox blocks ranges larger than {}.", kMaxRange);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  evaluator.charge(items.size());
  return Value::range(start, stop, step, std::move(items));
}

/// The pairs of a dictionary given by position, then arguments by name.
Dict merged_items(Evaluator& evaluator, const char* function, const Arguments& arguments) {
  require(arguments.positional.size() <= 1, "{} expected at most 1 argument, got {}", function,
          arguments.positional.size());
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& first = arguments.positional[0];
    if (first.is_dict()) {
      dict = first.dict();
    } else {
      for (const Value& pair : evaluator.items_of(first)) {
        const std::vector<Value> parts = evaluator.items_of(pair);
        require(parts.size() == 2, "{} expected pairs, found {} values", function, parts.size());
        dict.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict.set(Value(name), value);
  evaluator.charge(dict.size());
  return dict;
}

Value dict(Evaluator& evaluator, const Value&, const Arguments& arguments) {
  return Value(merged_items(evaluator, "dict", arguments));
}

Value name_space(Evaluator& evaluator, const Value&, const Arguments& arguments) {
  const Dict attributes = merged_items(evaluator, "namespace", arguments);
  Namespace& made = evaluator.make_namespace();
  for (const auto& [key, value] : attributes.items()) {
    require(key.is_string(), "namespace attributes must be named by strings, not {}", key.type_name());
    require(key.string().substr(0, 1) != "_", "a namespace cannot have the attribute '{}'",
            printable(key.string()));
    made.attributes.emplace_back(key.string(), value);
  }
  return Value(&made);
}

Value raise_exception(Evaluator&, const Value&, const Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  fail("{}", printable(to_text(*bound.get(0)), 400));
}

Value strftime_now(Evaluator&, const Value&, const Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string format = bound.string_or(0, "");
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') continue;
    ++i;
    require(i < format.size() &&
                std::string_view("aAbBcdHIjmMpSUwWxXyYZz%eFTDRnt").find(format[i]) != std::string_view::npos,
            "strftime_now(): the format '{}' is not supported", printable(format));
  }
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  // A conversion gives at most some 30 characters. The mark tells an empty result from a full buffer.
  std::string text(format.size() * 32 + 8, '\0');
  const size_t length = std::strftime(text.data(), text.size(), (format + "|").c_str(), &local);
  require(length > 0, "strftime_now(): the format '{}' is not supported", printable(format));
  return Value(text.substr(0, length - 1));
}

}  // namespace

BuiltIn find_global(std::string_view name) {
  if (name == "range") return range;
  if (name == "dict") return dict;
  if (name == "namespace") return name_space;
  if (name == "raise_exception") return raise_exception;
  if (name == "strftime_now") return strftime_now;
  return nullptr;
}

}  // namespace atom::text::jinja
