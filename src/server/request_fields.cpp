#include "server/request_fields.h"

#include <limits>

#include "checkpoint/json.h"

namespace atom::server {
namespace {

/// An integer of a JSON number that is written as one and fits.
std::optional<int64_t> to_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return {};
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return {};
}

std::string range_text(std::string_view what, int64_t min, int64_t max) {
  const bool bounded_below = min != std::numeric_limits<int64_t>::min();
  const bool bounded_above = max != std::numeric_limits<int64_t>::max();
  if (bounded_below && bounded_above) return fmt::format("{} from {} to {}", what, min, max);
  if (bounded_below) return fmt::format("{} of at least {}", what, min);
  return fmt::format("{} of 64 bits", what);
}

}  // namespace

void refuse_field(const std::string& field, const std::string& message, std::string code) {
  throw RequestError(400, fmt::format("{}: {}", printable(field), message), printable(field),
                     std::move(code));
}

void refuse_value(const std::string& field, std::string_view expected, const Json& found) {
  refuse_field(field, fmt::format("expected {}, found {}", expected, describe(found)));
}

std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_string()) return fmt::format("\"{}\"", printable(value.get_ref<const std::string&>(), 40));
  return value.dump();
}

Json parse_body(std::string_view body) {
  Json document;
  try {
    document = parse_json(body, "body");
  } catch (const RequestError&) {
    throw;
  } catch (const Error& error) {
    throw RequestError(400, error.what());
  }
  if (!document.is_object()) {
    throw RequestError(400, fmt::format("body: expected a JSON object, found {}", describe(document)));
  }
  return document;
}

Fields::Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) refuse_value(path_.empty() ? "body" : path_, "an object", object);
  // Members are looked for one by one.
  constexpr size_t kMaxMembers = 256;
  if (object.size() > kMaxMembers) {
    refuse_field(path_.empty() ? "body" : path_,
                 fmt::format("expected at most {} members, found {}", kMaxMembers, object.size()));
  }
}

std::string Fields::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const Json* Fields::find(std::string_view name) {
  known_.emplace(name);
  const auto member = object_.find(std::string(name));
  return member == object_.end() || member->is_null() ? nullptr : &*member;
}

const Json& Fields::required(std::string_view name, std::string_view expected) {
  const Json* value = find(name);
  if (!value) refuse_field(path_of(name), fmt::format("missing: expected {}", expected));
  return *value;
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (!value) return {};
  if (!value->is_boolean()) refuse_value(path_of(name), "true or false", *value);
  return value->get<bool>();
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t min, int64_t max) {
  const Json* value = find(name);
  if (!value) return {};
  const std::optional<int64_t> number = to_integer(*value);
  if (!number || *number < min || *number > max) {
    refuse_value(path_of(name), range_text("an integer", min, max), *value);
  }
  return number;
}

std::optional<double> Fields::number(std::string_view name, double min, double max) {
  const Json* value = find(name);
  if (!value) return {};
  if (!value->is_number() || !(value->get<double>() >= min && value->get<double>() <= max)) {
    refuse_value(path_of(name), fmt::format("a number from {} to {}", min, max), *value);
  }
  return value->get<double>();
}

std::optional<std::string> Fields::string(std::string_view name) {
  const Json* value = find(name);
  if (!value) return {};
  if (!value->is_string()) refuse_value(path_of(name), "a string", *value);
  return value->get<std::string>();
}

void Fields::ignore(std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) known_.emplace(name);
}

void Fields::refuse(std::initializer_list<std::string_view> names, std::string_view why) {
  for (const std::string_view name : names) {
    if (find(name)) refuse_field(path_of(name), std::string(why), "unsupported_parameter");
  }
}

void Fields::finish() const {
  for (const auto& [name, value] : object_.items()) {
    if (!known_.contains(name)) refuse_field(path_of(name), "unknown field", "unknown_parameter");
  }
}

std::vector<int32_t> read_token_ids(const Json& list, const std::string& field, int32_t vocab) {
  if (!list.is_array()) refuse_value(field, "a list of token ids", list);
  std::vector<int32_t> tokens;
  tokens.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const std::optional<int64_t> id = to_integer(list[i]);
    if (!id || *id < 0 || *id >= vocab) {
      refuse_value(fmt::format("{}[{}]", field, i), fmt::format("a token id below {}", vocab), list[i]);
    }
    tokens.push_back(static_cast<int32_t>(*id));
  }
  return tokens;
}

}  // namespace atom::server
