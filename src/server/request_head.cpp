#include "server/request_head.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/utf8.h"

namespace atom::server {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char letter = lower(c);
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/// False for a percent sign without two hexadecimal digits.
bool decode_percent(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char step = decode_utf8(text);
    if (!step.valid) return false;
    text.remove_prefix(step.length);
  }
  return true;
}

/// "host", "host:port", "[::1]:port" (RFC 3986, section 3.2), without a user.
bool is_authority(std::string_view text) {
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos || close < 2) return false;
    if (text.substr(1, close - 1).find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos)
      return false;
    port = text.substr(close + 1);
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    const std::string_view host = text.substr(0, colon);
    constexpr std::string_view kMarks = "-._~%!$&'()*+,;=";
    if (host.empty() || !std::all_of(host.begin(), host.end(), [&](char c) {
          const char letter = lower(c);
          return (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || (c & 0x80) != 0 ||
                 kMarks.find(c) != std::string_view::npos;
        })) {
      return false;
    }
    port = text.substr(colon);
  }
  return port.empty() || (port[0] == ':' && port.size() <= 6 &&
                          port.find_first_not_of("0123456789", 1) == std::string_view::npos);
}

/// Takes "http://authority" off; false when the target is of another form.
bool strip_authority(std::string_view& target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equal_ignoring_case(target.substr(0, scheme.size()), scheme)) continue;
    target.remove_prefix(scheme.size());
    const size_t end = std::min(target.find_first_of("/?"), target.size());
    if (end == 0 || !is_authority(target.substr(0, end))) return false;
    target.remove_prefix(end);
    return true;
  }
  return false;
}

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    const char letter = lower(c);
    return (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

std::string parse_target(std::string_view target, HttpRequest& request) {
  if (std::any_of(target.begin(), target.end(), is_control)) return "the request target has control bytes";
  if (target == "*" && request.method == "OPTIONS") {
    request.path.assign(1, '*');
    return {};
  }
  std::string_view rest = target;
  if (!rest.empty() && rest[0] != '/' && !strip_authority(rest)) {
    return fmt::format("the request target must be '/path' or 'http://host/path', found '{}'",
                       printable(target));
  }
  if (target.empty()) return "the request target is empty";
  if (rest.find('#') != std::string_view::npos) return "the request target has a fragment ('#')";
  const size_t question = std::min(rest.find('?'), rest.size());
  request.query = question < rest.size() ? rest.substr(question + 1) : std::string_view();
  std::string path;
  if (!decode_percent(rest.substr(0, question), path)) {
    return fmt::format("the request target has '%' without two hexadecimal digits: '{}'", printable(target));
  }
  if (std::any_of(path.begin(), path.end(), is_control)) return "the path has control bytes";
  if (!is_utf8(path)) return "the path is not UTF-8";
  if (path.empty()) path += '/';
  request.path = std::move(path);
  return {};
}

std::string check_headers(const HttpRequest& request, bool http11) {
  const auto count = [&](std::string_view name) {
    return std::count_if(request.headers.begin(), request.headers.end(),
                         [&](const auto& header) { return header.first == name; });
  };
  for (const std::string_view name :
       {"host", "content-length", "transfer-encoding", "authorization", "content-type", "origin"}) {
    if (count(name) > 1) return fmt::format("the header '{}' comes more than once", name);
  }
  if (http11 && count("host") == 0) return "HTTP/1.1 requests need the header 'host'";
  const std::string_view host = request.header("host");
  if (!host.empty() && !is_authority(host)) {
    return fmt::format("the header 'host' must be a host and perhaps a port, found '{}'", printable(host));
  }
  const std::string_view encoding = request.header("transfer-encoding");
  if (count("transfer-encoding") > 0) {
    if (count("content-length") > 0) return "both 'content-length' and 'transfer-encoding' are given";
    if (!http11) return "HTTP/1.0 requests have no 'transfer-encoding'";
    if (!equal_ignoring_case(encoding, "chunked")) {
      return fmt::format("the transfer encoding must be chunked, found '{}'", printable(encoding));
    }
  }
  const std::string_view length = request.header("content-length");
  if (count("content-length") > 0 &&
      (length.empty() || length.find_first_not_of("0123456789") != std::string_view::npos)) {
    return fmt::format("'content-length' must be a number, found '{}'", printable(length));
  }
  if (count("upgrade") > 0 && equal_ignoring_case(request.header("upgrade"), "websocket")) {
    return "there are no WebSockets here";
  }
  for (const auto& [name, value] : request.headers) {
    if (std::any_of(value.begin(), value.end(), [](char c) { return c != '\t' && is_control(c); })) {
      return fmt::format("the header '{}' has control bytes", printable(name));
    }
  }
  return {};
}

std::optional<std::string_view> bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (!equal_ignoring_case(authorization.substr(0, kScheme.size()), kScheme)) return std::nullopt;
  std::string_view token = authorization.substr(kScheme.size());
  token.remove_prefix(std::min(token.find_first_not_of(' '), token.size()));
  if (token.empty() || token.find_first_of(" \t,") != std::string_view::npos) return std::nullopt;
  return token;
}

bool is_token_list(std::string_view text) {
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) item.remove_prefix(1);
    while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) item.remove_suffix(1);
    if (!is_token(item)) return false;
    if (comma == text.size()) return true;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace atom::server
