#pragma once

#include <string>
#include <string_view>

#include "server/http.h"

/// Responses as HTTP/1.1 writes them.
namespace atom::server {

/// What every head begins with. HTTP/1.0 clients get it too (RFC 9110, section 6.2).
inline constexpr std::string_view kHttpVersion = "HTTP/1.1 ";

/// How the end of a body is told.
enum class Framing {
  length,  // by Content-Length
  chunks,  // chunked transfer encoding
  close    // by the end of the connection: streams to HTTP/1.0 clients
};

/// Status line and headers, without the body. `connection`: what "Connection" says; empty: nothing.
std::string format_head(const HttpResponse& response, Framing framing, std::string_view connection);

/// Appends `piece`, which must not be empty, as one chunk.
void append_chunk(std::string& out, std::string_view piece);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace atom::server
