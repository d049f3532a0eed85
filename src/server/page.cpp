#include "server/page.h"

#include <string>

#include <fmt/format.h>

#include "server/page_files.h"

namespace atom::server {
namespace {

constexpr std::string_view kFolder = "page/";

const EmbeddedFile* find_file(std::string_view path) {
  if (!path.starts_with('/')) return nullptr;
  const std::string_view wanted = path == "/" ? "index.html" : path.substr(1);
  for (const EmbeddedFile& file : page_files()) {
    const std::string_view name = file.name.substr(kFolder.size());
    // "/" is the one address of the page itself.
    if (name == wanted && (path == "/" || name != "index.html")) return &file;
  }
  return nullptr;
}

std::string_view content_type(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

/// Whether If-None-Match (RFC 9110, 13.1.2) names the tag: "*", or a list of tags, each perhaps weak.
bool matches(std::string_view if_none_match, std::string_view tag) {
  while (!if_none_match.empty()) {
    const size_t comma = if_none_match.find(',');
    std::string_view item = if_none_match.substr(0, comma);
    if_none_match = comma == std::string_view::npos ? "" : if_none_match.substr(comma + 1);
    while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) item.remove_prefix(1);
    while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) item.remove_suffix(1);
    if (item == "*") return true;
    if (item.starts_with("W/")) item.remove_prefix(2);
    if (item == tag) return true;
  }
  return false;
}

}  // namespace

bool is_page_path(std::string_view path) {
  return find_file(path) != nullptr;
}

std::optional<HttpResponse> page_response(const HttpRequest& request) {
  const EmbeddedFile* file = find_file(request.path);
  if (file == nullptr || (request.method != "GET" && request.method != "HEAD")) return std::nullopt;
  const std::string tag = fmt::format("\"{}\"", file->sha256.substr(0, 32));
  HttpResponse response;
  response.content_type = content_type(file->name);
  response.headers = {
      {"ETag", tag},
      // Kept by the browser, but asked for at each visit: an updated server brings an updated page.
      {"Cache-Control", "no-cache"},
      // Nothing from elsewhere, no code in attributes or answers, and no frame of another site around it.
      {"Content-Security-Policy",
       "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"},
  };
  if (matches(request.header("if-none-match"), tag)) {
    response.status = 304;
  } else {
    response.body = file->content;
  }
  return response;
}

}  // namespace atom::server
