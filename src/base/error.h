#pragma once

#include <cassert>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace atom {

/// What a user can cause: bad input, bad arguments, a full disk. Its text is one line that names the file,
/// tensor or field, what was expected and what was found. Programming errors are assertions instead.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// The command line itself is wrong (exit code 2 instead of 1).
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Ctrl-C arrived (exit code 130). Thrown by `throw_if_interrupted` from base/interrupt.h.
class Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted") {}
};

/// Throws an Error whose text is formatted by fmt.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws as `fail` does unless `condition` holds.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) fail(format, std::forward<Args>(args)...);
}

/// `text` made safe for one line of an error message: control bytes and broken UTF-8 are written as \xNN, and
/// anything beyond `limit` bytes is cut and marked with "...".
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace atom
