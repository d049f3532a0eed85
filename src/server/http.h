#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What the HTTP server (http_server.h) and those who answer its requests (api.h, page.h) say to each other.
/// Nothing here knows the library underneath.
namespace atom::server {

/// A request that has been read whole, within the server's limits.
struct HttpRequest {
  std::string method;  // "GET", "POST", ...; "GET" for HEAD too, whose body the server leaves out
  std::string path;    // percent-decoded, well-formed UTF-8, without the query: "/v1/models"
  std::string query;   // as it came, without the question mark
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;

  /// The first header of this (lower-case) name; empty when there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // beside content-type and content-length
};

/// The response to one request, in progress. Exactly one of send() and begin_stream() is to be called, once.
/// All methods may be called from any thread and return at once; what a client that has gone would have got
/// is dropped. Destroyed without a response, the client gets status 500; without the end of a stream, its
/// connection is broken off.
class Exchange {
 public:
  virtual ~Exchange() = default;

  /// The whole response, of any size.
  virtual void send(HttpResponse response) = 0;

  /// The head of a response whose body comes in pieces (server-sent events). `response.body` is its first
  /// piece.
  virtual void begin_stream(HttpResponse response) = 0;
  /// A piece more. False: the client has gone or reads too slowly, and the exchange has been closed.
  virtual bool write(std::string piece) = 0;
  /// The body is complete.
  virtual void end() = 0;

  /// `closed` is called once, on any thread, when the client goes (or is dropped as too slow) before send()
  /// or end() has been called; at once when that has happened already. It must not block.
  virtual void on_closed(std::function<void()> closed) = 0;
};

/// Answers a request, now or later from any thread. Must not block for long; may throw nothing.
using Handler = std::function<void(HttpRequest, std::shared_ptr<Exchange>)>;

/// An error in OpenAI's form: {"error": {"message", "type", "param", "code"}}. `type` follows from the status
/// (invalid_request_error, authentication_error, rate_limit_error, server_error, ...).
HttpResponse error_response(unsigned status, std::string_view message,
                            std::optional<std::string_view> param = {},
                            std::optional<std::string_view> code = {});

}  // namespace atom::server
