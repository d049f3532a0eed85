#include "model/config_fields.h"

#include <cmath>

#include "base/error.h"

namespace atom::config_fields {

const Json* find(const Json& json, const std::string& name) {
  const auto it = json.find(name);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

int64_t dimension(const Json& json, const std::string& source, const std::string& name,
                  const int64_t* fallback) {
  const Json* value = find(json, name);
  if (value == nullptr && fallback != nullptr) return *fallback;
  require(value != nullptr, "{}: {}: missing", source, name);
  require(value->is_number_integer(), "{}: {}: expected an integer, found {}", source, name,
          printable(value->dump()));
  const double number = value->get<double>();
  require(number >= 1 && number <= static_cast<double>(kLargestDimension),
          "{}: {}: expected 1 to {}, found {}", source, name, kLargestDimension, printable(value->dump()));
  return value->get<int64_t>();
}

float positive(const Json& json, const std::string& source, const std::string& name, float fallback) {
  const Json* value = find(json, name);
  if (value == nullptr) return fallback;
  require(value->is_number(), "{}: {}: expected a number, found {}", source, name, printable(value->dump()));
  const auto number = value->get<float>();
  require(std::isfinite(number) && number > 0, "{}: {}: expected a positive number, found {}", source, name,
          printable(value->dump()));
  return number;
}

bool flag(const Json& json, const std::string& source, const std::string& name, bool fallback) {
  const Json* value = find(json, name);
  if (value == nullptr) return fallback;
  require(value->is_boolean(), "{}: {}: expected true or false, found {}", source, name,
          printable(value->dump()));
  return value->get<bool>();
}

}  // namespace atom::config_fields
