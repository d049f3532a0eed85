#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/http.h"

namespace atom::server {

/// What a handler has said of a response and its connection has not taken yet. The handler has an Exchange
/// that writes to it from any thread; the connection takes from it on its own.
class ResponseState : public std::enable_shared_from_this<ResponseState> {
 public:
  /// `wake` tells the connection, from any thread, that there is something to take. It is called once until
  /// take(), never after close(), and must not call back.
  ResponseState(std::function<void()> wake, int64_t max_unsent);

  /// The handler's end.
  std::shared_ptr<Exchange> make_exchange();

  struct Output {
    std::optional<HttpResponse> head;  // with its whole body, or a stream's first piece
    bool streamed = false;
    std::string body;
    bool complete = false;
    bool abandoned = false;  // by the handler, without an end
    bool too_slow = false;   // more waits for the client than may
  };
  Output take();

  /// Bytes that the connection has taken and that still wait for the client.
  void set_queued(int64_t bytes);

  /// The connection has no use for it any more: the response is out, or the client has gone. The handler
  /// hears of it (on_closed) unless it is done.
  void close();

 private:
  class Handle;

  /// Needs the lock.
  void wake();
  void send(HttpResponse response, bool streamed);
  bool write(std::string piece);
  void end();
  void on_closed(std::function<void()> closed);
  void abandon();

  std::mutex mutex_;
  std::function<void()> wake_;
  std::function<void()> closed_callback_;
  const int64_t max_unsent_;
  int64_t queued_ = 0;
  Output output_;
  bool begun_ = false;
  bool done_ = false;
  bool closed_ = false;
  bool woken_ = false;
};

}  // namespace atom::server
