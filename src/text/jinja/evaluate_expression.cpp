#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

int64_t integer_of(const Value& value, const char* what) {
  require(value.is_int() || value.is_bool(), "{} must be integers, not {}", what, value.type_name());
  return value.integer();
}

/// range[start:stop:step] of bounds that are within it.
Value slice_of_range(const Sequence& range, int64_t start, int64_t stop, int64_t step,
                     std::vector<Value> items) {
  int64_t first = 0;
  int64_t last = 0;
  int64_t stride = 0;
  const bool overflows = __builtin_mul_overflow(range.step, step, &stride) ||
                         __builtin_mul_overflow(range.step, start, &first) ||
                         __builtin_add_overflow(range.start, first, &first) ||
                         __builtin_mul_overflow(range.step, stop, &last) ||
                         __builtin_add_overflow(range.start, last, &last);
  require(!overflows, "integers beyond 64 bits are not supported");
  return Value::range(first, last, stride, std::move(items));
}

Value bound_method(std::string_view name, BuiltIn built_in, const Value& self) {
  auto function = std::make_shared<Function>();
  function->name = name;
  function->built_in = built_in;
  function->self = self;
  Value value{std::shared_ptr<const Function>(std::move(function))};
  require(value.depth() <= kMaxValueDepth, "a value is nested deeper than {} levels", kMaxValueDepth);
  return value;
}

Value get_group_part(const Sequence& group, std::string_view name) {
  if (name == "grouper") return group.items[0];
  if (name == "list") return group.items[1];
  return Value::undefined(
      fmt::format("'_GroupTuple object' has no attribute '{}'", printable(std::string(name))));
}

Value loop_cycle(Evaluator&, const Value& self, const Arguments& arguments) {
  require(!arguments.positional.empty() && arguments.named.empty(), "no items for cycling given");
  const auto count = static_cast<int64_t>(arguments.positional.size());
  return arguments.positional[static_cast<size_t>(self.loop().index0 % count)];
}

Value loop_changed(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  auto& last = self.loop().last_changed;
  const bool same =
      last && last->size() == arguments.positional.size() &&
      std::equal(last->begin(), last->end(), arguments.positional.begin(),
                 [&](const Value& a, const Value& b) { return equal(a, b, evaluator.budget()); });
  if (!same) last = arguments.positional;
  return Value(!same);
}

std::optional<Value> loop_attribute(const Value& value, std::string_view name) {
  LoopState& loop = value.loop();
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(!loop.peek().has_value());
  if (name == "length") return Value(loop.length());
  if (name == "revindex") return Value(loop.length() - loop.index0);
  if (name == "revindex0") return Value(loop.length() - loop.index0 - 1);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") return loop.previous.value_or(Value::undefined("there is no previous item"));
  if (name == "nextitem") return loop.peek().value_or(Value::undefined("there is no next item"));
  if (name == "cycle") return bound_method(name, loop_cycle, value);
  if (name == "changed") return bound_method(name, loop_changed, value);
  return std::nullopt;
}

bool forbidden_by_sandbox(const Value& value, std::string_view name) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (value.is_dict()) return is_one_of({"clear", "pop", "popitem", "setdefault", "update"});
  if (value.is_sequence(SequenceKind::kList)) {
    return is_one_of({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
  }
  return false;
}

}  // namespace

Value Evaluator::get_attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) fail("{}", value.undefined_message());
  if (name.substr(0, 2) == "__") return Value::undefined("access to attribute '" + name + "' is unsafe");
  if (forbidden_by_sandbox(value, name)) {
    return Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, value.type_name()));
  }
  BuiltIn method = nullptr;
  if (value.is_string()) method = find_string_method(name);
  if (value.is_dict()) method = find_dict_method(name);
  if (value.is_sequence()) method = find_sequence_method(value, name);
  if (method != nullptr) return bound_method(name, method, value);
  if (value.is_sequence() && value.list().is_group) return get_group_part(value.list(), name);
  require(!is_unsupported_method(value, name), "the method '{}' of '{}' objects is not supported", name,
          value.type_name());
  if (value.is_dict()) {
    if (const Value* item = value.dict().find_text(name)) return *item;
  }
  if (value.is_namespace()) {
    if (const Value* item = value.name_space().find(name)) return *item;
  }
  if (value.is_loop()) {
    if (const std::optional<Value> item = loop_attribute(value, name)) return *item;
  }
  return Value::undefined(
      fmt::format("'{} object' has no attribute '{}'", value.type_name(), printable(name)));
}

Value Evaluator::get_item(const Value& value, const Value& key) {
  if (value.is_undefined()) fail("{}", value.undefined_message());
  if (value.is_dict()) {
    const bool unhashable = key.is_dict() || key.is_sequence(SequenceKind::kList);
    if (unhashable) return Value::undefined("unhashable key");
    charge_key(*this, key);
    if (const Value* item = value.dict().find(key)) return *item;
  }
  const bool indexable = value.is_string() || value.is_sequence(SequenceKind::kList) ||
                         value.is_sequence(SequenceKind::kTuple) || value.is_sequence(SequenceKind::kRange);
  if (indexable && (key.is_int() || key.is_bool())) {
    const bool text = value.is_string();
    if (text) charge(value.string().size() / 64);
    const auto size = static_cast<int64_t>(text ? char_count(value.string()) : value.list().items.size());
    int64_t index = key.integer();
    if (index < 0) index += size;
    if (index < 0 || index >= size) {
      return Value::undefined(fmt::format("{} object has no element {}", value.type_name(), key.integer()));
    }
    if (!text) return value.list().items[static_cast<size_t>(index)];
    const std::string& string = value.string();
    if (static_cast<size_t>(size) == string.size())
      return like(value, string.substr(static_cast<size_t>(index), 1));
    charge(string.size() / 4);
    return like(value, std::string(chars(string)[static_cast<size_t>(index)]));
  }
  if (key.is_string()) return get_attribute(value, key.string());
  return Value::undefined(fmt::format("{} object has no such element", value.type_name()));
}

Value Evaluator::evaluate_slice(const Expression& expression) {
  const Value value = evaluate(*expression.children[0]);
  std::optional<int64_t> parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.children[i + 1]) continue;
    const Value part = evaluate(*expression.children[i + 1]);
    if (!part.is_none()) parts[i] = integer_of(part, "slice indices");
  }
  if (value.is_undefined()) fail("{}", value.undefined_message());
  const bool text = value.is_string();
  const bool sliceable = text || value.is_sequence(SequenceKind::kList) ||
                         value.is_sequence(SequenceKind::kTuple) || value.is_sequence(SequenceKind::kRange);
  require(sliceable, "'{}' object cannot be sliced", value.type_name());

  const int64_t step = parts[2].value_or(1);
  require(step != 0, "slice step cannot be zero");
  std::vector<std::string_view> characters;
  if (text) {
    charge(value.string().size() / 4 + 1);
    characters = chars(value.string());
  }
  const auto size = static_cast<int64_t>(text ? characters.size() : value.list().items.size());
  const auto clamp = [&](std::optional<int64_t> part, int64_t fallback) {
    if (!part) return fallback;
    const int64_t index = *part < 0 ? *part + size : *part;
    return step > 0 ? std::clamp<int64_t>(index, 0, size) : std::clamp<int64_t>(index, -1, size - 1);
  };
  const int64_t start = clamp(parts[0], step > 0 ? 0 : size - 1);
  const int64_t stop = clamp(parts[1], step > 0 ? size : -1);

  std::string string;
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (text) {
      string += characters[static_cast<size_t>(i)];
    } else {
      items.push_back(value.list().items[static_cast<size_t>(i)]);
    }
    // Beyond the ends there is nothing more, so a huge step must not overflow.
    if (step > size || step < -size) break;
    i += step;
  }
  if (text) return like(value, std::move(string));
  charge(items.size());
  if (value.is_sequence(SequenceKind::kRange))
    return slice_of_range(value.list(), start, stop, step, std::move(items));
  return Value::sequence(std::move(items), value.list().kind);
}

Value Evaluator::evaluate(const Expression& expression) {
  struct Depth {
    int& depth;
    ~Depth() { --depth; }
  };
  const Depth depth{++depth_};
  require(depth_ <= limits_.depth, "recursion deeper than {} levels", limits_.depth);
  charge(1);
  return evaluate_node(expression);
}

Value Evaluator::evaluate_node(const Expression& expression) {
  const auto child = [&](size_t i) { return evaluate(*expression.children[i]); };
  switch (expression.kind) {
    case ExpressionKind::kConstant:
      return expression.constant;
    case ExpressionKind::kName:
      return lookup(expression.name);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple: {
      std::vector<Value> items;
      for (const ExpressionPtr& item : expression.children) items.push_back(evaluate(*item));
      return Value::sequence(std::move(items), expression.kind == ExpressionKind::kList
                                                   ? SequenceKind::kList
                                                   : SequenceKind::kTuple);
    }
    case ExpressionKind::kDict: {
      Dict dict;
      for (size_t i = 0; i < expression.children.size(); i += 2) {
        Value key = child(i);
        dict.set(std::move(key), child(i + 1));
      }
      return Value(std::move(dict));
    }
    case ExpressionKind::kNot:
      return Value(!child(0).truth());
    case ExpressionKind::kNegative:
    case ExpressionKind::kPositive: {
      const Value value = child(0);
      if (value.is_undefined()) fail("{}", value.undefined_message());
      require(value.is_number(), "bad operand type for a sign: '{}'", value.type_name());
      const bool negative = expression.kind == ExpressionKind::kNegative;
      if (value.is_float()) return Value(negative ? -value.number() : value.number());
      require(value.integer() != INT64_MIN, "integers beyond 64 bits are not supported");
      return Value(negative ? -value.integer() : value.integer());
    }
    case ExpressionKind::kBinary: {
      const Value left = child(0);
      return binary_operation(*this, expression.name, left, child(1));
    }
    case ExpressionKind::kAnd: {
      Value left = child(0);
      return left.truth() ? child(1) : left;
    }
    case ExpressionKind::kOr: {
      Value left = child(0);
      return left.truth() ? left : child(1);
    }
    case ExpressionKind::kCompare:
      return evaluate_compare(expression);
    case ExpressionKind::kConcat: {
      std::vector<Value> parts;
      for (const ExpressionPtr& part : expression.children) parts.push_back(evaluate(*part));
      return concat(parts);
    }
    case ExpressionKind::kCondition:
      if (child(0).truth()) return child(1);
      if (expression.children[2]) return child(2);
      return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
    case ExpressionKind::kAttribute:
      return get_attribute(child(0), expression.name);
    case ExpressionKind::kSubscript: {
      const Value value = child(0);
      return get_item(value, child(1));
    }
    case ExpressionKind::kSlice:
      return evaluate_slice(expression);
    case ExpressionKind::kCall:
      return evaluate_call(expression, nullptr);
    case ExpressionKind::kFilter:
      return evaluate_filter(expression, nullptr);
    case ExpressionKind::kTest: {
      require(expression.built_in != nullptr, "no test named '{}' is supported", expression.name);
      const Value value = child(0);
      return expression.built_in(*this, value, evaluate_arguments(expression));
    }
  }
  fail("an expression of unknown kind");
}

Value Evaluator::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.children[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1]);
    const std::string& op = expression.operators[i];
    bool holds = false;
    if (op == "==") {
      holds = equal(left, right, budget_);
    } else if (op == "!=") {
      holds = !equal(left, right, budget_);
    } else if (op == "in") {
      holds = contains(*this, right, left);
    } else if (op == "not in") {
      holds = !contains(*this, right, left);
    } else {
      const int order = compare(left, right, op, budget_);
      holds = op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Arguments Evaluator::evaluate_arguments(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.children.size(); ++i) {
    arguments.positional.push_back(evaluate(*expression.children[i]));
  }
  for (const auto& [name, value] : expression.named) arguments.named.emplace_back(name, evaluate(*value));
  if (expression.spread) {
    const Value more = evaluate(*expression.spread);
    if (more.is_undefined()) fail("{}", more.undefined_message());
    for (Value& item : items_of(more)) arguments.positional.push_back(std::move(item));
  }
  if (expression.spread_named) {
    const Value more = evaluate(*expression.spread_named);
    require(more.is_dict(), "argument after ** must be a mapping, not {}", more.type_name());
    for (const auto& [key, value] : more.dict().items()) {
      require(key.is_string(), "keywords must be strings, not {}", key.type_name());
      for (const auto& [known, other] : arguments.named)
        require(known != key.string(), "multiple values for keyword argument '{}'", printable(known));
      arguments.named.emplace_back(key.string(), value);
    }
  }
  charge(arguments.positional.size() + arguments.named.size());
  return arguments;
}

Value Evaluator::evaluate_filter(const Expression& expression, const Value* input) {
  require(expression.built_in != nullptr, "no filter named '{}' is supported", expression.name);
  // In a filter block the innermost filter has no expression to work on but the block's text.
  const Expression* inner = expression.children[0].get();
  Value value;
  if (inner == nullptr) {
    value = *input;
  } else if (inner->kind == ExpressionKind::kFilter && input != nullptr) {
    value = evaluate_filter(*inner, input);
  } else {
    value = evaluate(*inner);
  }
  return expression.built_in(*this, value, evaluate_arguments(expression));
}

Value Evaluator::evaluate_call(const Expression& expression, const Value* caller) {
  const Value callee = evaluate(*expression.children[0]);
  Arguments arguments = evaluate_arguments(expression);
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  return call(callee, arguments);
}

}  // namespace atom::text::jinja
