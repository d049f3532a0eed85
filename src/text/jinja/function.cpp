#include "text/jinja/function.h"

#include <algorithm>

#include "base/error.h"

namespace atom::text::jinja {

Bound::Bound(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> parameters, size_t required)
    : function_(function), names_(parameters), values_(parameters.size(), nullptr) {
  require(arguments.positional.size() <= values_.size(), "{}() takes at most {} arguments, found {}",
          function, values_.size(), arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto it = std::find(names_.begin(), names_.end(), name);
    require(it != names_.end(), "{}() got an unexpected keyword argument '{}'", function, printable(name));
    const Value*& place = values_[static_cast<size_t>(it - names_.begin())];
    require(place == nullptr, "{}() got multiple values for argument '{}'", function, name);
    place = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    require(values_[i] != nullptr, "{}() misses the argument '{}'", function, names_[i]);
  }
}

int64_t Bound::integer_or(size_t index, int64_t fallback) const {
  if (values_[index] == nullptr) return fallback;
  const Value& value = *values_[index];
  require(value.is_int() || value.is_bool(), "{}(): expected an integer for '{}', found {}", function_,
          names_[index], value.type_name());
  return value.integer();
}

std::string Bound::string_or(size_t index, std::string fallback) const {
  if (values_[index] == nullptr) return fallback;
  require(values_[index]->is_string(), "{}(): expected a string for '{}', found {}", function_, names_[index],
          values_[index]->type_name());
  return values_[index]->string();
}

}  // namespace atom::text::jinja
