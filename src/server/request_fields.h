#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atom::server {

using Json = nlohmann::ordered_json;

/// A request that is answered by an error of the client's making. The text names the field.
class RequestError : public Error {
 public:
  RequestError(unsigned status, const std::string& message, std::string param = "", std::string code = "")
      : Error(message), status_(status), param_(std::move(param)), code_(std::move(code)) {}

  unsigned status() const { return status_; }
  /// The field, empty where it is not of one field.
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }

 private:
  unsigned status_;
  std::string param_;
  std::string code_;
};

/// 400 for a field: "FIELD: MESSAGE".
[[noreturn]] void refuse_field(const std::string& field, const std::string& message, std::string code = "");

/// 400 for a value: "FIELD: expected EXPECTED, found VALUE".
[[noreturn]] void refuse_value(const std::string& field, std::string_view expected, const Json& found);

/// A JSON value as an error quotes it, in a few words.
std::string describe(const Json& value);

/// The body of a request as JSON. Throws RequestError 400 saying where it is not JSON, nests too deeply, has
/// a key twice, or is no object.
Json parse_body(std::string_view body);

/// Typed reading of the members of an object. Every method throws RequestError 400 naming the field when it
/// is of another type or out of range; a member that is null counts as missing. Every member has to be read,
/// or ignored, or refused: `finish` throws for the others.
class Fields {
 public:
  /// `path` is where the object is, such as "messages[2]"; empty for the body itself.
  Fields(const Json& object, std::string path = "");

  /// The member, or nullptr.
  const Json* find(std::string_view name);
  const Json& required(std::string_view name, std::string_view expected);

  std::optional<bool> boolean(std::string_view name);
  /// A number written without fraction and exponent, from `min` to `max`.
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<std::string> string(std::string_view name);

  /// Members that change nothing here.
  void ignore(std::initializer_list<std::string_view> names);
  /// Members that would change what is asked for and that the server does not have.
  void refuse(std::initializer_list<std::string_view> names, std::string_view why);

  void finish() const;

  /// "messages[2].role".
  std::string path_of(std::string_view name) const;

 private:
  const Json& object_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

/// A list of token ids of a vocabulary of this size. `field` names it in errors.
std::vector<int32_t> read_token_ids(const Json& list, const std::string& field, int32_t vocab);

}  // namespace atom::server
