#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// Requests over HTTP/1.1, many at a time on one thread, on connections that are kept.
namespace atom::cli {

/// http://host[:port][/path].
struct Url {
  std::string text;
  std::string host;
  std::string port;
  /// Where the API is, without a slash at its end: "/v1" where the URL says nothing.
  std::string base;
};

/// Throws UsageError.
Url parse_url(const std::string& text);

struct HttpCall {
  std::string method;
  std::string target;
  /// JSON; empty: none.
  std::string body;
  /// A piece of the response's body has come, of a response of this status.
  std::function<void(unsigned status, std::string_view piece)> on_body;
  /// The response is complete (`error` is empty), or will not be: once, as the last call. `status` is 0 where
  /// no response came.
  std::function<void(unsigned status, const std::string& error)> on_done;
};

/// What happened to the connections.
struct ConnectionCounts {
  int64_t opened = 0;
  /// Requests sent on a connection that had carried another.
  int64_t reused = 0;
  /// Connections that the server closed though the client would have kept them.
  int64_t dropped = 0;
};

/// Sends every call at once, on a kept connection where one is free. A call that a kept connection loses
/// before any of its response has come is sent once more on a new one: the server had closed it meanwhile.
class HttpClient {
 public:
  /// `api_key` may be empty. `timeout` bounds a call from its sending to the end of its response. Throws
  /// Error for a host without an address.
  HttpClient(boost::asio::io_context& context, const Url& url, std::string api_key,
             std::chrono::duration<double> timeout);
  /// Destroyed before `context`, and after it has stopped or has nothing left to do.
  ~HttpClient();

  void send(HttpCall call);
  const ConnectionCounts& counts() const { return counts_; }

 private:
  struct Connection;
  class Call;

  boost::asio::io_context& context_;
  Url url_;
  std::string api_key_;
  std::chrono::nanoseconds timeout_;
  boost::asio::ip::tcp::resolver::results_type addresses_;
  std::vector<std::unique_ptr<Connection>> idle_;
  ConnectionCounts counts_;
};

}  // namespace atom::cli
