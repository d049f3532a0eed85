#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace atom::text::jinja {

/// What a short text in a list of its own costs: it takes about this many times as much memory as an item.
inline constexpr size_t kStepsPerText = 4;

/// What a run may use up before it is stopped with an Error.
struct Limits {
  size_t steps = 5'000'000;  ///< expressions, statements, items made, and each 16 bytes of text made
  size_t output_bytes = size_t{16} << 20;
  int depth = 1000;  ///< of expressions, statements and macro calls inside one another
};

/// Names that a body can see: its own, then those of the scope around it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string, Value>> names;
  bool captured = false;  ///< a macro may still need it when its body is left

  Value* find(std::string_view name);
  void set(const std::string& name, Value value);
};

/// The state of a running `for`: what the template sees as `loop`.
struct LoopState {
  std::vector<Value> items;
  size_t next = 0;                            ///< first item not yet looked at
  std::function<bool(const Value&)> accepts;  ///< the loop's condition; may be empty
  std::optional<Value> after;                 ///< the item behind `current`, when it was looked up
  std::optional<Value> previous;
  std::optional<Value> current;
  std::optional<std::vector<Value>> last_changed;  ///< what changed() saw last
  int64_t index0 = -1;
  int64_t depth0 = 0;                    ///< of a loop that calls itself
  const Statement* statement = nullptr;  ///< of a recursive loop
  Scope* scope = nullptr;                ///< around a recursive loop

  /// Moves to the next item; false at the end.
  bool advance();
  /// Looks one item ahead.
  const std::optional<Value>& peek();
  int64_t length();

 private:
  std::optional<Value> fetch();
};

/// Runs a parsed template once.
class Evaluator {
 public:
  /// `name` is for errors; `globals` are the variables of this run.
  Evaluator(const std::string& name, const Limits& limits,
            std::vector<std::pair<std::string, Value>> globals);
  ~Evaluator();

  std::string run(const Body& body);

  Value call(const Value& callee, const Arguments& arguments);

  /// Uses up steps. Throws Error when none are left.
  void charge(size_t steps) { budget_.charge(steps); }
  StepBudget& budget() { return budget_; }
  /// Charges for text of that size before it is made.
  void charge_text(size_t bytes);
  size_t max_text_bytes() const { return limits_.output_bytes; }

  Value make_generator(std::vector<Value> items);
  Namespace& make_namespace();

  /// What iterating over the value gives; of a generator, what is left of it. Throws Error for what has no
  /// items.
  std::vector<Value> items_of(const Value& value);
  Value get_attribute(const Value& value, const std::string& name);
  Value get_item(const Value& value, const Value& key);
  Value concat(const std::vector<Value>& parts);

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class Frame;

  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_for(const Statement& statement);
  Flow run_loop(const Statement& statement, Scope* outer, std::vector<Value> items, int64_t depth0);
  Value call_loop(LoopState& loop, const Arguments& arguments);
  void execute_set_block(const Statement& statement);
  void execute_call_block(const Statement& statement);
  void print(const Value& value);
  void assign(const Target& target, Value value);
  /// Runs a body with output of its own.
  std::string capture(const Body& body);

  Value evaluate(const Expression& expression);
  Value evaluate_node(const Expression& expression);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_filter(const Expression& expression, const Value* input);
  Value evaluate_call(const Expression& expression, const Value* caller);
  Arguments evaluate_arguments(const Expression& expression);
  Value lookup(const std::string& name);
  void set_name(const std::string& name, Value value);
  Value call_macro(const Function& function, const Arguments& arguments);
  Value make_macro(const Macro& macro);
  /// Keeps the scopes from here outwards when their bodies are left.
  void capture_scopes();

  const std::string& name_;
  const Limits& limits_;
  StepBudget budget_;
  int depth_ = 0;
  std::string* out_ = nullptr;
  Scope* scope_ = nullptr;
  std::vector<std::unique_ptr<Scope>> scopes_;  // the ones in use, innermost last, and captured ones
  std::vector<std::unique_ptr<Scope>> captured_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<LoopState>> loops_;
  std::vector<std::unique_ptr<Generator>> generators_;
};

/// a op b for + - * / // % **.
Value binary_operation(Evaluator& evaluator, std::string_view op, const Value& a, const Value& b);

/// Charges for a look-up of `key` in a dictionary.
void charge_key(Evaluator& evaluator, const Value& key);

/// Python's `item in container`.
bool contains(Evaluator& evaluator, const Value& container, const Value& item);

}  // namespace atom::text::jinja
