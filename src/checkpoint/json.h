#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace atom {

/// What an untrusted JSON document may be at most.
struct JsonLimits {
  size_t bytes = size_t{1} << 28;
  /// Objects and arrays inside each other.
  int depth = 64;
};

/// Parses one JSON document. Throws Error naming `source` and the position for a syntax error, text that is
/// not UTF-8, a key that appears twice in one object, and anything beyond `limits`. Takes time and memory in
/// proportion to the text, objects with many members included.
nlohmann::ordered_json parse_json(std::string_view text, std::string_view source, JsonLimits limits = {});

/// The document in a file.
nlohmann::ordered_json read_json_file(const std::filesystem::path& path, JsonLimits limits = {});

/// Adds a member that is known not to be there yet, in constant time: ordered_json's own insertion looks
/// through all the members first, which is quadratic for a vocabulary.
template <class Value>
void append_member(nlohmann::ordered_json::object_t& object, std::string key, Value&& value) {
  using Members = nlohmann::ordered_json::object_t::Container;
  static_cast<Members&>(object).emplace_back(std::move(key), std::forward<Value>(value));
}

/// The double whose shortest decimal form is that of a finite float: 0.85, and not 0.8500000238418579.
double decimal(float value);

inline bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    if (!next.valid) return false;
    text.remove_prefix(next.length);
  }
  return true;
}

}  // namespace atom
