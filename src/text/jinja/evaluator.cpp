#include "text/jinja/evaluator.h"

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

/// An error that already says where in the template it happened.
class LocatedError : public Error {
 public:
  using Error::Error;
};

/// Restores what a run writes to.
struct Redirect {
  std::string*& out;
  std::string* saved;
  ~Redirect() { out = saved; }
};

constexpr size_t kBytesPerStep = 16;
constexpr size_t kNamesPerStep = 32;
constexpr size_t kStepsPerScope = 8;
constexpr size_t kStepsPerLoop = 32;

}  // namespace

/// A scope that ends with the body it is for.
class Evaluator::Frame {
 public:
  Frame(Evaluator& evaluator, Scope* parent) : evaluator_(evaluator), outer_(evaluator.scope_) {
    evaluator.charge(kStepsPerScope);
    evaluator.scopes_.push_back(std::make_unique<Scope>());
    evaluator.scopes_.back()->parent = parent;
    evaluator.scope_ = evaluator.scopes_.back().get();
  }
  ~Frame() {
    std::unique_ptr<Scope> scope = std::move(evaluator_.scopes_.back());
    evaluator_.scopes_.pop_back();
    evaluator_.scope_ = outer_;
    if (scope->captured) evaluator_.captured_.push_back(std::move(scope));
  }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

 private:
  Evaluator& evaluator_;
  Scope* outer_;
};

Value* Scope::find(std::string_view name) {
  for (auto& [key, value] : names) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  if (Value* known = find(name)) {
    *known = std::move(value);
  } else {
    names.emplace_back(name, std::move(value));
  }
}

std::optional<Value> LoopState::fetch() {
  while (next < items.size()) {
    Value item = items[next++];
    if (!accepts || accepts(item)) return item;
  }
  return std::nullopt;
}

const std::optional<Value>& LoopState::peek() {
  if (!after) after = fetch();
  return after;
}

bool LoopState::advance() {
  std::optional<Value> item = after ? std::move(after) : fetch();
  after.reset();
  if (!item) return false;
  ++index0;
  previous = std::move(current);
  current = std::move(item);
  return true;
}

int64_t LoopState::length() {
  // With a condition, counting means deciding on all that is left.
  if (accepts) {
    std::vector<Value> left;
    while (std::optional<Value> item = fetch()) left.push_back(std::move(*item));
    items = std::move(left);
    next = 0;
    accepts = nullptr;
  }
  return static_cast<int64_t>(items.size() - next) + index0 + 1 + (after ? 1 : 0);
}

Evaluator::Evaluator(const std::string& name, const Limits& limits,
                     std::vector<std::pair<std::string, Value>> globals)
    : name_(name), limits_(limits), budget_(limits.steps) {
  scopes_.push_back(std::make_unique<Scope>());
  scope_ = scopes_.back().get();
  scope_->names = std::move(globals);
}

Evaluator::~Evaluator() = default;

void Evaluator::charge_text(size_t bytes) {
  require(bytes <= limits_.output_bytes, "a text grows beyond {} bytes", limits_.output_bytes);
  charge(bytes / kBytesPerStep);
}

Value Evaluator::make_generator(std::vector<Value> items) {
  charge(items.size() + 1);
  generators_.push_back(std::make_unique<Generator>());
  generators_.back()->items = std::move(items);
  return Value(generators_.back().get());
}

Namespace& Evaluator::make_namespace() {
  charge(kStepsPerScope);
  namespaces_.push_back(std::make_unique<Namespace>());
  return *namespaces_.back();
}

std::string Evaluator::run(const Body& body) {
  std::string out;
  out_ = &out;
  const Frame frame(*this, scope_);
  try {
    execute(body);
  } catch (const LocatedError& error) {
    throw Error(error.what());
  }
  return out;
}

Evaluator::Flow Evaluator::execute(const Body& body) {
  for (const auto& statement : body) {
    const Flow flow = execute(*statement);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::execute(const Statement& statement) {
  struct Depth {
    int& depth;
    ~Depth() { --depth; }
  };
  const Depth depth{++depth_};
  try {
    require(depth_ <= limits_.depth, "recursion deeper than {} levels", limits_.depth);
    charge(1);
    switch (statement.kind) {
      case StatementKind::kData:
        charge_text(out_->size() + statement.text.size() > limits_.output_bytes ? limits_.output_bytes + 1
                                                                                : statement.text.size());
        *out_ += statement.text;
        break;
      case StatementKind::kOutput:
        print(evaluate(*statement.value));
        break;
      case StatementKind::kIf:
        for (const auto& [condition, body] : statement.branches) {
          if (condition == nullptr || evaluate(*condition).truth()) return execute(body);
        }
        break;
      case StatementKind::kFor:
        return execute_for(statement);
      case StatementKind::kSet:
        assign(statement.target, evaluate(*statement.value));
        break;
      case StatementKind::kSetBlock:
        execute_set_block(statement);
        break;
      case StatementKind::kMacro:
        scope_->set(statement.macro->name, make_macro(*statement.macro));
        break;
      case StatementKind::kCallBlock:
        execute_call_block(statement);
        break;
      case StatementKind::kFilterBlock: {
        const Value text(capture(statement.body));
        const Value filtered = evaluate_filter(*statement.value, &text);
        require(filtered.is_string(), "a filter block must give a string, not {}", filtered.type_name());
        print(filtered);
        break;
      }
      case StatementKind::kWith: {
        std::vector<Value> values;
        for (const auto& [target, value] : statement.bindings) values.push_back(evaluate(*value));
        const Frame frame(*this, scope_);
        for (size_t i = 0; i < values.size(); ++i) assign(statement.bindings[i].first, std::move(values[i]));
        return execute(statement.body);
      }
      case StatementKind::kBreak:
        return Flow::kBreak;
      case StatementKind::kContinue:
        return Flow::kContinue;
      case StatementKind::kGroup: {
        const Frame frame(*this, scope_);
        execute(statement.body);
        break;
      }
    }
    return Flow::kNormal;
  } catch (const LocatedError&) {
    throw;
  } catch (const Error& error) {
    throw LocatedError(fmt::format("{}: line {}: {}", name_, statement.line, error.what()));
  }
}

Evaluator::Flow Evaluator::execute_for(const Statement& statement) {
  return run_loop(statement, scope_, items_of(evaluate(*statement.value)), 0);
}

Evaluator::Flow Evaluator::run_loop(const Statement& statement, Scope* outer, std::vector<Value> items,
                                    int64_t depth0) {
  charge(kStepsPerLoop + items.size());
  loops_.push_back(std::make_unique<LoopState>());
  LoopState& loop = *loops_.back();
  loop.items = std::move(items);
  loop.depth0 = depth0;
  if (statement.recursive) {
    loop.statement = &statement;
    loop.scope = outer;
    capture_scopes();
  }
  if (statement.condition) {
    loop.accepts = [&, this](const Value& item) {
      const Frame frame(*this, outer);
      assign(statement.target, item);
      return evaluate(*statement.condition).truth();
    };
  }
  bool any = false;
  while (loop.advance()) {
    const Frame frame(*this, outer);
    scope_->set("loop", Value(&loop));
    assign(statement.target, *loop.current);
    // An iteration that break or continue ends does not count: jinja2's `else` asks for one that came to its
    // end.
    const Flow flow = execute(statement.body);
    any = any || flow == Flow::kNormal;
    if (flow == Flow::kBreak) break;
  }
  // The loop object may live on in a namespace, but its condition needs this statement's surroundings.
  loop.accepts = nullptr;
  if (any) return Flow::kNormal;
  const Frame frame(*this, outer);
  return execute(statement.otherwise);
}

/// loop(items): the text of the loop's body over other items.
Value Evaluator::call_loop(LoopState& loop, const Arguments& arguments) {
  require(loop.statement != nullptr, "the loop must have the 'recursive' marker to be called recursively");
  const Bound bound("loop", arguments, {"iterable"}, 1);
  std::string text;
  const Redirect redirect{out_, out_};
  out_ = &text;
  run_loop(*loop.statement, loop.scope, items_of(*bound.get(0)), loop.depth0 + 1);
  return Value(std::move(text));
}

void Evaluator::execute_set_block(const Statement& statement) {
  Value text(capture(statement.body));
  if (statement.value) text = evaluate_filter(*statement.value, &text);
  assign(statement.target, std::move(text));
}

void Evaluator::execute_call_block(const Statement& statement) {
  const Value caller = make_macro(*statement.macro);
  print(evaluate_call(*statement.value, &caller));
}

std::string Evaluator::capture(const Body& body) {
  std::string text;
  const Redirect redirect{out_, out_};
  out_ = &text;
  const Frame frame(*this, scope_);
  execute(body);
  return text;
}

void Evaluator::print(const Value& value) {
  const std::string text = to_text(value);
  require(out_->size() + text.size() <= limits_.output_bytes, "the output grows beyond {} bytes",
          limits_.output_bytes);
  charge_text(text.size());
  *out_ += text;
}

void Evaluator::assign(const Target& target, Value value) {
  if (!target.parts.empty()) {
    const std::vector<Value> items = items_of(value);
    require(items.size() == target.parts.size(), "expected {} values to unpack, found {}",
            target.parts.size(), items.size());
    for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
  } else if (!target.attribute.empty()) {
    const Value space = lookup(target.name);
    require(space.is_namespace(), "cannot assign attribute on non-namespace object");
    charge(space.name_space().attributes.size() / kNamesPerStep);
    require(target.attribute[0] != '_', "a namespace cannot have the attribute '{}'", target.attribute);
    if (Value* known = space.name_space().find(target.attribute)) {
      *known = std::move(value);
    } else {
      space.name_space().attributes.emplace_back(target.attribute, std::move(value));
    }
  } else {
    set_name(target.name, std::move(value));
  }
}

void Evaluator::set_name(const std::string& name, Value value) {
  charge(scope_->names.size() / kNamesPerStep);
  scope_->set(name, std::move(value));
}

Value Evaluator::lookup(const std::string& name) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    charge(scope->names.size() / kNamesPerStep);
    if (const Value* value = scope->find(name)) return *value;
  }
  if (const BuiltIn built_in = find_global(name)) {
    auto function = std::make_shared<Function>();
    function->name = name;
    function->built_in = built_in;
    return Value(std::shared_ptr<const Function>(std::move(function)));
  }
  for (const char* unsupported : {"cycler", "joiner", "lipsum", "self"}) {
    require(name != unsupported, "'{}' is not supported", name);
  }
  return Value::undefined("'" + name + "' is undefined");
}

void Evaluator::capture_scopes() {
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent)
    scope->captured = true;
}

Value Evaluator::make_macro(const Macro& macro) {
  capture_scopes();
  auto function = std::make_shared<Function>();
  function->name = macro.name;
  function->macro = &macro;
  function->scope = scope_;
  return Value(std::shared_ptr<const Function>(std::move(function)));
}

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail("{}", callee.undefined_message());
  if (callee.is_loop()) return call_loop(callee.loop(), arguments);
  require(callee.is_function(), "'{}' object is not callable", callee.type_name());
  const Function& function = callee.function();
  if (function.macro != nullptr) return call_macro(function, arguments);
  if (function.self.is_markup()) return call_markup_method(*this, function, arguments);
  return function.built_in(*this, function.self, arguments);
}

Value Evaluator::call_macro(const Function& function, const Arguments& arguments) {
  const Macro& macro = *function.macro;
  const size_t count = macro.parameters.size();
  require(arguments.positional.size() <= count || macro.mentions.varargs,
          "macro '{}' takes not more than {} argument(s)", macro.name, count);

  const Frame frame(*this, function.scope);
  if (macro.mentions.caller) scope_->set("caller", Value::undefined("No caller defined"));
  std::vector<bool> given(count, false);
  std::vector<Value> varargs;
  Dict kwargs;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i >= count) {
      varargs.push_back(arguments.positional[i]);
      continue;
    }
    scope_->set(macro.parameters[i], arguments.positional[i]);
    given[i] = true;
  }
  for (const auto& [name, value] : arguments.named) {
    const auto it = std::find(macro.parameters.begin(), macro.parameters.end(), name);
    if (it == macro.parameters.end() && name == "caller" && macro.mentions.caller) {
      scope_->set(name, value);
      continue;
    }
    if (it == macro.parameters.end() && macro.mentions.kwargs) {
      kwargs.set(Value(name), value);
      continue;
    }
    require(it != macro.parameters.end(), "macro '{}' takes no keyword argument '{}'", macro.name, name);
    const auto index = static_cast<size_t>(it - macro.parameters.begin());
    require(!given[index], "macro '{}' got multiple values for argument '{}'", macro.name, name);
    scope_->set(name, value);
    given[index] = true;
  }
  if (macro.mentions.varargs)
    scope_->set("varargs", Value::sequence(std::move(varargs), SequenceKind::kTuple));
  if (macro.mentions.kwargs) scope_->set("kwargs", Value(std::move(kwargs)));
  const size_t first_default = count - macro.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    scope_->set(macro.parameters[i],
                i < first_default
                    ? Value::undefined("parameter '" + macro.parameters[i] + "' was not provided")
                    : evaluate(*macro.defaults[i - first_default]));
  }
  return Value(capture(macro.body));
}

std::vector<Value> Evaluator::items_of(const Value& value) {
  if (value.is_undefined()) return {};
  if (value.is_sequence()) {
    charge(value.list().items.size());
    return value.list().items;
  }
  if (value.is_string()) {
    charge(value.string().size() * kStepsPerText);
    std::vector<Value> items;
    for (const std::string_view c : chars(value.string())) items.emplace_back(c);
    return items;
  }
  if (value.is_dict()) {
    charge(value.dict().size());
    std::vector<Value> keys;
    for (const auto& item : value.dict().items()) keys.push_back(item.first);
    return keys;
  }
  if (value.is_generator()) {
    Generator& generator = value.generator();
    charge(generator.items.size() - generator.next);
    std::vector<Value> left(generator.items.begin() + static_cast<std::ptrdiff_t>(generator.next),
                            generator.items.end());
    generator.next = generator.items.size();
    return left;
  }
  fail("'{}' object is not iterable", value.type_name());
}

Value Evaluator::concat(const std::vector<Value>& parts) {
  std::string text;
  for (const Value& part : parts) {
    const std::string piece = to_text(part);
    charge_text(text.size() + piece.size() > limits_.output_bytes ? limits_.output_bytes + 1 : piece.size());
    text += piece;
  }
  return Value(std::move(text));
}

}  // namespace atom::text::jinja
