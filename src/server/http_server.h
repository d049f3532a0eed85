#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace atom::server {

/// Everything that bounds what clients can do, one field a limit.
struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  int threads = 2;
  /// PEM files; both or none. With them the server speaks TLS only.
  std::string tls_certificate;
  std::string tls_key;
  /// Keys of which a request must bring one as "Authorization: Bearer KEY"; none: no authentication.
  std::vector<std::string> api_keys;
  /// Paths that need no key; unset: /health and /ready.
  std::function<bool(std::string_view path)> needs_no_key;
  /// Origins that may call from a browser; "*": any; none: CORS is off.
  std::vector<std::string> cors_origins;
  /// Of the request line and the headers (431 beyond).
  int64_t max_header_bytes = 16 << 10;
  /// 413 beyond.
  int64_t max_body_bytes = 8 << 20;
  /// Beyond, new ones are told so (503) and closed.
  int64_t max_connections = 1024;
  /// To send a whole request, from its first byte on (408 beyond), and for a new connection to begin one.
  std::chrono::milliseconds request_timeout{30'000};
  /// Until the next request of a connection that is kept alive.
  std::chrono::milliseconds idle_timeout{75'000};
  /// A client that has taken nothing of what waits for it for so long is dropped.
  std::chrono::milliseconds write_timeout{1'000};
  /// Bytes that may wait for one client; beyond that it is dropped as too slow.
  int64_t max_unsent_bytes = 1 << 20;
  /// Called once for every response, with the request's path (empty when it could not be read) and the
  /// status.
  std::function<void(std::string_view path, unsigned status)> on_response;
};

/// An asynchronous HTTP/1.1 server (Boost.Beast): keep-alive, TLS, limits, server-sent events with
/// back-pressure. No thread per connection.
class HttpServer {
 public:
  /// Binds and listens. Throws Error naming host and port when that fails, and for certificates that can't be
  /// read.
  HttpServer(HttpOptions options, Handler handler);
  /// As stop().
  ~HttpServer();

  /// The port that it listens on.
  uint16_t port() const;

  /// No more connections; those that answer nothing are closed at once, the others when their response is
  /// complete. Returns whether all were within `limit`.
  bool drain(std::chrono::milliseconds limit);
  /// Closes everything.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::server
