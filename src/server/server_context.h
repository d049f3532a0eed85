#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "server/access.h"
#include "server/asio.h"
#include "server/http_server.h"

namespace atom::server {

class Connection;

/// What the connections of a server share. Thread-safe.
class ServerContext {
 public:
  /// Throws Error as HttpServer's constructor does.
  ServerContext(HttpOptions http_options, Handler request_handler);

  const HttpOptions options;
  const Handler handler;
  const ApiKeys keys;
  const Cors cors;
  std::optional<asio::ssl::context> tls;
  /// No further requests are taken.
  std::atomic<bool> draining = false;

  /// Whether a request for `path` may come without a key.
  bool is_public(std::string_view path) const;

  void add(const std::shared_ptr<Connection>& connection);
  void remove(Connection* connection);
  size_t n_connections() const;
  std::vector<std::shared_ptr<Connection>> connections() const;
  /// Whether the last one goes within `limit`.
  bool wait_until_empty(std::chrono::milliseconds limit);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections_;
};

}  // namespace atom::server
