#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "server/http.h"

/// What is read of a request's head beyond its grammar, which the HTTP library knows.
namespace atom::server {

/// Splits a request's target ("/path?query", "http://host/path?query", or "*" where `method` is OPTIONS) and
/// decodes the path. Returns what is wrong with it; empty: nothing.
std::string parse_target(std::string_view target, HttpRequest& request);

/// Returns what is wrong with the headers of `request`; empty: nothing. Ambiguous framing (Content-Length
/// with Transfer-Encoding, or either twice) is how requests are smuggled past a proxy.
std::string check_headers(const HttpRequest& request, bool http11);

/// The token of "Bearer TOKEN".
std::optional<std::string_view> bearer_token(std::string_view authorization);

/// Whether `text` is a list of header names as "Access-Control-Request-Headers" has it.
bool is_token_list(std::string_view text);

/// Whether a and b are the same but for the case of ASCII letters.
bool equal_ignoring_case(std::string_view a, std::string_view b);

}  // namespace atom::server
