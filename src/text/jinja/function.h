#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace atom::text::jinja {

class Evaluator;
struct Macro;
struct Scope;

/// Arguments of a call: by position, then by name.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Implements a built-in: `self` is the value of a method or filter, none otherwise.
using BuiltIn = Value (*)(Evaluator& evaluator, const Value& self, const Arguments& arguments);

/// Something a template can call: a built-in or a macro (with the scope it was defined in).
struct Function {
  std::string name;
  BuiltIn built_in = nullptr;
  Value self;
  const Macro* macro = nullptr;
  Scope* scope = nullptr;
};

/// Assigns arguments to parameters as Python does.
class Bound {
 public:
  /// Throws Error for arguments too many, unknown, or given twice. The first `required` ones must be there.
  Bound(std::string_view function, const Arguments& arguments,
        std::initializer_list<std::string_view> parameters, size_t required = 0);

  /// The argument, or null.
  const Value* get(size_t index) const { return values_[index]; }
  Value get_or(size_t index, Value fallback) const {
    return values_[index] ? *values_[index] : std::move(fallback);
  }
  /// Throws Error when the argument is there and not an integer.
  int64_t integer_or(size_t index, int64_t fallback) const;
  /// Throws Error when the argument is there and not a string.
  std::string string_or(size_t index, std::string fallback) const;

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

/// The filter, test, global function or method of that name; null when there is none.
BuiltIn find_filter(std::string_view name);
BuiltIn find_test(std::string_view name);
BuiltIn find_global(std::string_view name);
BuiltIn find_string_method(std::string_view name);
BuiltIn find_dict_method(std::string_view name);
BuiltIn find_sequence_method(const Value& value, std::string_view name);

/// Whether Python's type has a method of that name that is not supported here.
bool is_unsupported_method(const Value& value, std::string_view name);

}  // namespace atom::text::jinja
