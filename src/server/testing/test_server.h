#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <spdlog/spdlog.h>

#include "server/http_server.h"

namespace atom::test_support {

/// A server whose answers tests decide. /echo says what it was asked; /stream sends pieces; /hold waits for
/// the test to answer; /forget lets the exchange go; /throw throws.
class TestServer {
 public:
  struct Held {
    server::HttpRequest request;
    std::shared_ptr<server::Exchange> exchange;
  };

  explicit TestServer(server::HttpOptions options = {}) {
    options.port = 0;
    options.on_response = [this](std::string_view path, unsigned status) {
      const std::lock_guard lock(mutex_);
      responses_.emplace_back(path, status);
    };
    // Whoever asks first makes it. The library has no thread sanitizer in it, which would see a race of two
    // of the server's threads in that.
    spdlog::default_logger();
    server.emplace(std::move(options),
                   [this](auto request, auto exchange) { answer(std::move(request), std::move(exchange)); });
  }
  ~TestServer() {
    held_.clear();
    server.reset();
  }

  uint16_t port() const { return server->port(); }

  /// The next request to /hold.
  Held take() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(10), [&] { return !held_.empty(); })) return {};
    Held held = std::move(held_.front());
    held_.pop_front();
    return held;
  }

  std::vector<std::pair<std::string, unsigned>> responses() const {
    const std::lock_guard lock(mutex_);
    return responses_;
  }

  std::optional<server::HttpServer> server;

 private:
  void answer(server::HttpRequest request, std::shared_ptr<server::Exchange> exchange) {
    if (request.path == "/throw") throw std::runtime_error("thrown by the test");
    if (request.path == "/forget") return;
    if (request.path == "/hold") {
      const std::lock_guard lock(mutex_);
      held_.push_back({std::move(request), std::move(exchange)});
      changed_.notify_all();
      return;
    }
    server::HttpResponse response;
    response.content_type = "text/plain";
    if (request.path == "/stream") {
      response.body = "first ";
      exchange->begin_stream(std::move(response));
      for (int i = 0; i < 10; ++i) exchange->write(std::to_string(i) + " ");
      return exchange->end();
    }
    if (request.path == "/large") response.body = std::string(4 << 20, 'x');
    if (request.path != "/large") {
      response.body = request.method + " " + request.path + " " + request.query + " " + request.body;
    }
    exchange->send(std::move(response));
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Held> held_;
  std::vector<std::pair<std::string, unsigned>> responses_;
};

/// Waits for a callback of another thread.
class Signal {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool wait(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return count_ > 0; });
  }
  int count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

}  // namespace atom::test_support
