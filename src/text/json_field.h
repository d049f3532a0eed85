#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atom::text {

// Ids index a table; a document with a stray huge id must not ask for a huge one.
inline constexpr int64_t kMaxTokenId = 1 << 22;

/// A value inside a tokenizer.json and its path, for errors: `tokenizer.json: model.vocab: expected ...`.
class Field {
 public:
  using Json = nlohmann::json;

  Field(const Json& value, std::string path) : value_(value), path_(std::move(path)) {}

  const Json& value() const { return value_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_.is_null(); }

  [[noreturn]] void bad(std::string_view expected) const {
    fail("{}: expected {}, found {}", path_, expected, found());
  }

  Field at(const char* key) const {
    static const Json kNull;
    const auto it = object().find(key);
    return {it == object().end() ? kNull : *it,
            fmt::format("{}{}{}", path_, path_.ends_with(": ") ? "" : ".", key)};
  }
  Field at(size_t index) const { return {array()[index], fmt::format("{}[{}]", path_, index)}; }

  const Json& object() const {
    if (!value_.is_object()) bad("an object");
    return value_;
  }
  const Json& array() const {
    if (!value_.is_array()) bad("an array");
    return value_;
  }
  const std::string& string() const {
    if (!value_.is_string()) bad("a string");
    return value_.get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_.is_boolean()) bad("true or false");
    return value_.get<bool>();
  }
  bool boolean_or(bool fallback) const { return is_null() ? fallback : boolean(); }
  /// A number from 0 to `most`.
  size_t count(size_t most) const {
    const bool fits = value_.is_number_integer() &&
                      (value_.is_number_unsigned() || value_.get<int64_t>() >= 0) &&
                      value_.get<uint64_t>() <= most;
    if (!fits) bad(fmt::format("a number from 0 to {}", most));
    return value_.get<size_t>();
  }
  int32_t id() const {
    if (!value_.is_number_integer()) bad("a token id");
    if (value_.is_number_unsigned() ? value_.get<uint64_t>() >= kMaxTokenId
                                    : value_.get<int64_t>() < 0 || value_.get<int64_t>() >= kMaxTokenId) {
      bad(fmt::format("a token id below {}", kMaxTokenId));
    }
    return value_.get<int32_t>();
  }

  /// Refuses everything but null, false, 0 and "".
  void must_be_off() const {
    const bool off = value_.is_null() || value_ == false || value_ == 0 || value_ == "";
    if (!off) bad("nothing, as this option is not supported");
  }

  /// Refuses members that this reader does not know.
  void only(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, member] : object().items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        fail("{}: member \"{}\" is not supported", path_, printable(key));
      }
    }
  }

 private:
  std::string found() const {
    if (value_.is_string()) return fmt::format("\"{}\"", printable(value_.get_ref<const std::string&>()));
    if (value_.is_number() || value_.is_boolean()) return value_.dump();
    return value_.type_name();
  }

  const Json& value_;
  std::string path_;
};

}  // namespace atom::text
