#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/asio.h"
#include "server/request_reader.h"
#include "server/response_state.h"
#include "server/server_context.h"

namespace atom::server {

/// One client's connection: reads a request, has it answered, and again. All of it runs on the connection's
/// strand, except where said.
///
/// While a response is in progress it goes on reading, in order to notice that the client goes; what comes
/// early (pipelining) is kept, up to a bound, and read as the next request when the response is complete. A
/// client that closes its sending side alone can't be told from one that closed the whole connection until
/// something is sent to it. So where nothing of the response is there to send, the first bytes that every
/// response has are sent ahead: the system of a client that has gone answers with a reset. Over TLS the end
/// of the stream always counts as gone.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /// `refuse`: answer with status 503 whatever comes.
  Connection(tcp::socket socket, std::shared_ptr<ServerContext> context, bool refuse);

  void start();
  /// From any thread: closes the connection, unless it answers a request, at once; else behind the response.
  void drain();
  /// From any thread: closes it at once.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  enum class State {
    handshake,   // of TLS
    idle,        // nothing of a request is there
    reading,     // a part of a request is
    responding,  // until the response has been written
    lingering,   // our side is closed; what still comes is thrown away, lest a reset overtake the response
    closed
  };

  /// Runs `body` on the strand, and drops the connection where it throws.
  template <class Body>
  void guarded(Body&& body);

  void ready();
  void read();
  void on_read(error_code error, size_t count);
  void on_read_end(error_code error);
  void parse();
  /// Decides what can be decided before the body is there.
  void on_head();
  void on_request();

  /// Puts the request that the reader holds into the state `responding`.
  std::shared_ptr<ResponseState> begin_response();
  /// Answers by itself and closes the connection behind that.
  void refuse(HttpResponse response);
  void take_output();
  void append_head(HttpResponse response, bool streamed);
  void append_body(std::string_view piece);
  void write();
  void on_write(error_code error, size_t count);
  void finish_response();

  void arm(std::chrono::milliseconds time);
  void on_timer();
  void check_progress();

  void linger();
  void linger_without_tls();
  /// `reset`: throw away what has not been sent.
  void close(bool reset);

  tcp::socket socket_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;
  asio::steady_timer timer_;
  std::shared_ptr<ServerContext> context_;
  const bool refuse_;

  State state_ = State::handshake;
  std::array<char, 16 << 10> chunk_;  // what is being read
  std::string input_;                 // what has been read and not used yet
  bool reading_ = false;
  bool input_ended_ = false;
  bool tls_ended_ = false;  // nothing goes through TLS any more
  std::optional<RequestReader> reader_;

  // The response in progress.
  std::shared_ptr<ResponseState> response_;
  HttpRequest request_;  // what it answers, without its body
  std::optional<HttpResponse> early_response_;
  bool http11_ = true;
  bool head_request_ = false;
  bool keep_alive_ = false;
  bool version_sent_ = false;
  bool head_written_ = false;
  bool chunked_ = false;
  bool complete_ = false;
  unsigned status_ = 0;
  int64_t body_bytes_ = 0;
  Clock::time_point request_begin_;

  std::string output_;   // waits
  std::string writing_;  // is being written, from written_ on
  size_t written_ = 0;
  bool write_pending_ = false;
  int64_t handed_over_ = 0;  // bytes to the kernel, in all
  /// Bytes that the client has taken, and since when it is so many while more wait.
  int64_t taken_ = 0;
  std::optional<Clock::time_point> stalled_since_;
};

}  // namespace atom::server
