#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace atom::text::jinja {

class Value;
struct Namespace;
struct LoopState;
struct Function;
struct Generator;

/// Containers inside one another, beyond which a template is stopped: values are printed, compared and freed
/// recursively.
inline constexpr int kMaxValueDepth = 200;

/// Beyond which a value is refused. Its weight is about the number of bytes it takes when printed: a list
/// that holds itself twice, 40 times over, takes no memory, but it must not be printed, compared or hashed.
inline constexpr size_t kMaxValueWeight = size_t{16} << 20;

/// What a run of a template may still do, in steps.
class StepBudget {
 public:
  explicit StepBudget(size_t steps) : limit_(steps), left_(steps) {}

  /// Uses up steps. Throws Error when none are left.
  void charge(size_t steps);

 private:
  size_t limit_;
  size_t left_;
};

/// A name or attribute that does not exist. `message` is what an attempt to use it says.
struct Undefined {
  std::string message;
};

/// A text that needs no escaping: what the filters safe and escape make. It escapes what is added to it.
struct Markup {
  std::string text;
};

/// Python's list and tuple, its dictionary views and range(): they differ in how they print and what they can
/// do.
enum class SequenceKind { kList, kTuple, kKeys, kValues, kItems, kRange };

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  int depth = 1;
  size_t weight = 2;
  bool is_group = false;  ///< a tuple that the filter groupby made
  int64_t start = 0;      ///< of a range
  int64_t stop = 0;
  int64_t step = 1;
};

/// A dictionary that keeps the order of insertion. Keys may be strings, numbers, booleans, none and tuples.
class Dict {
 public:
  using Item = std::pair<Value, Value>;
  const std::vector<Item>& items() const { return items_; }
  size_t size() const { return hashes_.size(); }
  /// The value at `key`, or null. Throws Error for keys that cannot be hashed.
  const Value* find(const Value& key) const;
  const Value* find_text(std::string_view key) const;
  void set(Value key, Value value);
  int depth() const { return depth_; }
  size_t weight() const { return weight_; }

 private:
  const Value* find_hashed(const std::string& hash) const;
  std::vector<Item> items_;
  std::vector<std::string> hashes_;                   // of the keys, same order
  std::map<std::string, size_t, std::less<>> index_;  // made once there are many
  int depth_ = 1;
  size_t weight_ = 2;
};

/// A value of the template language; copies are cheap. Lists and dictionaries cannot be changed once made
/// (the sandbox forbids it). Namespaces, loops and generators are owned by the run that made them.
class Value {
 public:
  using List = std::shared_ptr<const Sequence>;
  using Map = std::shared_ptr<const Dict>;
  using Text = std::shared_ptr<const std::string>;
  using SafeText = std::shared_ptr<const Markup>;
  using Call = std::shared_ptr<const Function>;

  Value() : data_(nullptr) {}  // none
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(Markup text) : data_(std::make_shared<const Markup>(std::move(text))) {}
  Value(Undefined undefined) : data_(std::make_shared<const Undefined>(std::move(undefined))) {}
  Value(List list) : data_(std::move(list)) {}
  Value(Dict dict) : data_(std::make_shared<const Dict>(std::move(dict))) {}
  Value(Call call) : data_(std::move(call)) {}
  Value(Namespace* space) : data_(space) {}
  Value(LoopState* loop) : data_(loop) {}
  Value(Generator* generator) : data_(generator) {}

  /// Throws Error when the items nest too deeply or are too much.
  static Value sequence(std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
  /// range(start, stop, step), whose items are `items`.
  static Value range(int64_t start, int64_t stop, int64_t step, std::vector<Value> items);
  static Value undefined(std::string message) { return Value(Undefined{std::move(message)}); }
  /// Throws Error when the document nests too deeply.
  static Value from_json(const nlohmann::ordered_json& json, int depth = 0);

  bool is_undefined() const { return holds<std::shared_ptr<const Undefined>>(); }
  bool is_none() const { return holds<std::nullptr_t>(); }
  bool is_bool() const { return holds<bool>(); }
  /// An integer that is not a boolean.
  bool is_int() const { return holds<int64_t>(); }
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return holds<Text>() || is_markup(); }
  bool is_markup() const { return holds<SafeText>(); }
  bool is_sequence() const { return holds<List>(); }
  bool is_sequence(SequenceKind kind) const { return is_sequence() && list().kind == kind; }
  bool is_dict() const { return holds<Map>(); }
  bool is_namespace() const { return holds<Namespace*>(); }
  bool is_loop() const { return holds<LoopState*>(); }
  bool is_generator() const { return holds<Generator*>(); }
  bool is_function() const { return holds<Call>(); }

  const std::string& undefined_message() const {
    return std::get<std::shared_ptr<const Undefined>>(data_)->message;
  }
  /// Of booleans too.
  int64_t integer() const { return is_bool() ? std::get<bool>(data_) : std::get<int64_t>(data_); }
  /// Of any number.
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }
  const std::string& string() const {
    return is_markup() ? std::get<SafeText>(data_)->text : *std::get<Text>(data_);
  }
  const Sequence& list() const { return *std::get<List>(data_); }
  const Dict& dict() const { return *std::get<Map>(data_); }
  Namespace& name_space() const { return *std::get<Namespace*>(data_); }
  LoopState& loop() const { return *std::get<LoopState*>(data_); }
  Generator& generator() const { return *std::get<Generator*>(data_); }
  const Function& function() const { return *std::get<Call>(data_); }

  /// Python's truth.
  bool truth() const;
  /// How deep containers nest in it; 0 for scalars.
  int depth() const;
  size_t weight() const;
  /// Python's name of the type, for errors.
  std::string type_name() const;

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  std::variant<std::nullptr_t, bool, int64_t, double, Text, SafeText, std::shared_ptr<const Undefined>, List,
               Map, Call, Namespace*, LoopState*, Generator*>
      data_;
};

/// What map(), select() and their like return: it can be walked once, is always true and has no length.
struct Generator {
  std::vector<Value> items;
  size_t next = 0;
};

/// An object whose attributes a template may set.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Value* find(std::string_view name);
};

/// Python's ==.
bool equal(const Value& a, const Value& b, StepBudget& budget);

/// Negative, zero or positive as Python orders a and b. Throws Error for types that have no order.
int compare(const Value& a, const Value& b, std::string_view operation, StepBudget& budget);

/// Two values that can be keys have the same hash text exactly when they are equal. Throws Error for lists
/// and dictionaries.
std::string hash_text(const Value& key);

}  // namespace atom::text::jinja
