#pragma once

#include <optional>
#include <string>

#include "text/jinja/value.h"

namespace atom::text::jinja {

/// Python's str(): what a template prints. Throws Error for values whose text would be an address.
std::string to_text(const Value& value);

/// Python's repr().
std::string to_repr(const Value& value);

std::string float_text(double value);

struct JsonOptions {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  size_t max_bytes = size_t{16} << 20;
};

/// Python's json.dumps. Throws Error for values that JSON has no form for.
std::string to_json(const Value& value, const JsonOptions& options);

}  // namespace atom::text::jinja
