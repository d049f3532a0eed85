#include "server/response_text.h"

#include <algorithm>
#include <cassert>
#include <ctime>
#include <iterator>

#include <fmt/format.h>

namespace atom::server {
namespace {

std::string_view reason(unsigned status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return status < 400 ? "OK" : "Error";
  }
}

/// Now, as "Date" has it, in English whatever the locale.
std::string http_date() {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  ::gmtime_r(&now, &utc);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ");
  // Whatever a value was made from, it ends no line.
  std::transform(value.begin(), value.end(), std::back_inserter(out),
                 [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c; });
  out += "\r\n";
}

}  // namespace

std::string format_head(const HttpResponse& response, Framing framing, std::string_view connection) {
  std::string out = fmt::format("{}{} {}\r\n", kHttpVersion, response.status, reason(response.status));
  append_header(out, "Date", http_date());
  append_header(out, "Server", "atom");
  if (response.status != 204 && response.status != 304) {
    append_header(out, "Content-Type", response.content_type);
    if (framing == Framing::length)
      append_header(out, "Content-Length", std::to_string(response.body.size()));
    if (framing == Framing::chunks) append_header(out, "Transfer-Encoding", "chunked");
  }
  if (!connection.empty()) append_header(out, "Connection", connection);
  for (const auto& [name, value] : response.headers) append_header(out, name, value);
  out += "\r\n";
  return out;
}

void append_chunk(std::string& out, std::string_view piece) {
  assert(!piece.empty());
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", piece.size());
  out.append(piece).append("\r\n");
}

}  // namespace atom::server
