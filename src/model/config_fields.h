#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

/// Fields of a config.json with the checks that a hostile file asks for. JSON null is as good as absence, as
/// in transformers, unless said otherwise. Errors name `source` and the field.
namespace atom::config_fields {

using Json = nlohmann::ordered_json;

inline constexpr int64_t kLargestDimension = int64_t{1} << 24;

/// The value of `name`, or null when it is absent or JSON null.
const Json* find(const Json& json, const std::string& name);

/// An integer from 1 to kLargestDimension; without it the fallback, and without that an Error.
int64_t dimension(const Json& json, const std::string& source, const std::string& name,
                  const int64_t* fallback = nullptr);

/// A finite number above 0 as a float holds it.
float positive(const Json& json, const std::string& source, const std::string& name, float fallback);

/// true or false.
bool flag(const Json& json, const std::string& source, const std::string& name, bool fallback);

}  // namespace atom::config_fields
