#include "http_client.h"

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <limits>
#include <optional>
#include <sys/socket.h>
#include <utility>

#include "base/error.h"

namespace atom::cli {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

Url parse_url(const std::string& text) {
  constexpr std::string_view kScheme = "http://";
  const auto refuse = [&](const char* why) {
    throw UsageError(fmt::format("'{}': {}, expected http://host:port[/v1]", printable(text), why));
  };
  if (text.rfind("https://", 0) == 0) refuse("no TLS here");
  if (text.rfind(kScheme, 0) != 0) refuse("not a URL");
  const size_t slash = std::min(text.find('/', kScheme.size()), text.size());
  const std::string authority = text.substr(kScheme.size(), slash - kScheme.size());
  Url url{text, authority, "80", text.substr(slash)};
  // "[::1]:80": the colons of an IPv6 address stand in brackets.
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) {
    url.host = authority.substr(0, colon);
    url.port = authority.substr(colon + 1);
  }
  if (url.host.size() > 2 && url.host.front() == '[' && url.host.back() == ']') {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  const auto bad = [](unsigned char c) { return c <= ' ' || c == 0x7F; };
  if (url.host.empty() || std::any_of(text.begin(), text.end(), bad)) refuse("no host");
  const bool digits =
      std::all_of(url.port.begin(), url.port.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || url.port.empty() || url.port.size() > 5 || std::stoi(url.port) > 65535) refuse("bad port");
  while (!url.base.empty() && url.base.back() == '/') url.base.pop_back();
  if (url.base.empty()) url.base = "/v1";
  return url;
}

struct HttpClient::Connection {
  explicit Connection(asio::io_context& context) : stream(context) {}

  /// Whether the other side has closed it, or says what nobody asked for.
  bool stale() {
    char byte = 0;
    const ssize_t count = ::recv(stream.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return count >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  beast::tcp_stream stream;
  beast::flat_buffer buffer;
  bool used = false;
};

/// One call on its way. Handlers keep it alive.
class HttpClient::Call : public std::enable_shared_from_this<Call> {
 public:
  Call(HttpClient& client, HttpCall call) : client_(client), call_(std::move(call)) {
    deadline_ = std::chrono::steady_clock::now() + client.timeout_;
    request_.method_string(call_.method);
    request_.target(call_.target);
    request_.version(11);
    const bool brackets = client.url_.host.find(':') != std::string::npos;
    request_.set(http::field::host, fmt::format("{}{}{}:{}", brackets ? "[" : "", client.url_.host,
                                                brackets ? "]" : "", client.url_.port));
    request_.set(http::field::user_agent, "atom-bench");
    if (!client.api_key_.empty()) request_.set(http::field::authorization, "Bearer " + client.api_key_);
    if (!call_.body.empty()) request_.set(http::field::content_type, "application/json");
    request_.body() = call_.body;
    request_.prepare_payload();
  }

  void start() {
    while (!client_.idle_.empty()) {
      connection_ = std::move(client_.idle_.back());
      client_.idle_.pop_back();
      if (!connection_->stale()) return write();
      ++client_.counts_.dropped;
    }
    connect();
  }

 private:
  void connect() {
    connection_ = std::make_unique<Connection>(client_.context_);
    connection_->stream.expires_at(deadline_);
    connection_->stream.async_connect(client_.addresses_,
                                      [self = shared_from_this()](error_code error, const auto&) {
                                        if (error) return self->finish(0, self->spell(error));
                                        self->connected();
                                      });
  }

  void connected() {
    ++client_.counts_.opened;
    error_code ignored;
    connection_->stream.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
    write();
  }

  void write() {
    if (connection_->used) ++client_.counts_.reused;
    connection_->stream.expires_at(deadline_);
    http::async_write(connection_->stream, request_, [self = shared_from_this()](error_code error, size_t) {
      // A server may refuse a request before it has read all of it: its answer is there to be read.
      if (error && self->lost(error)) return;
      self->read();
    });
  }

  void read() {
    parser_.emplace();
    // Not boost::none, which Boost 1.74 takes for less than any length. Whoever reads bounds what it keeps.
    parser_->body_limit(std::numeric_limits<uint64_t>::max());
    parser_->header_limit(1 << 16);
    http::async_read_header(connection_->stream, connection_->buffer, *parser_,
                            [self = shared_from_this()](error_code error, size_t) {
                              if (error && self->lost(error)) return;
                              if (error) return self->finish(0, self->spell(error));
                              self->read_body();
                            });
  }

  /// Tries again on a new connection where the server closed a kept one before it took this call.
  bool lost(error_code error) {
    if (!connection_->used || error == beast::error::timeout) return false;
    if (parser_ && parser_->got_some()) return false;
    ++client_.counts_.dropped;
    --client_.counts_.reused;
    parser_.reset();
    connect();
    return true;
  }

  void read_body() {
    if (parser_->is_done()) return complete();
    auto& body = parser_->get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    http::async_read_some(connection_->stream, connection_->buffer, *parser_,
                          [self = shared_from_this()](error_code error, size_t) { self->got_body(error); });
  }

  void got_body(error_code error) {
    const size_t size = piece_.size() - parser_->get().body().size;
    const unsigned status = parser_->get().result_int();
    if (size > 0 && call_.on_body) call_.on_body(status, {piece_.data(), size});
    if (error && error != http::error::need_buffer) return finish(status, spell(error));
    read_body();
  }

  void complete() {
    const unsigned status = parser_->get().result_int();
    if (parser_->keep_alive()) {
      connection_->used = true;
      connection_->stream.expires_never();
      client_.idle_.push_back(std::move(connection_));
    } else {
      ++client_.counts_.dropped;
    }
    finish(status, {});
  }

  void finish(unsigned status, const std::string& error) {
    connection_.reset();
    call_.on_done(status, error);
  }

  std::string spell(error_code error) const {
    if (error == beast::error::timeout) return "timeout";
    if (error == http::error::end_of_stream || error == http::error::partial_message ||
        error == asio::error::eof || error == asio::error::connection_reset ||
        error == asio::error::broken_pipe) {
      return "connection lost";
    }
    std::string text = error.message();
    std::transform(text.begin(), text.begin() + 1, text.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return text;
  }

  HttpClient& client_;
  HttpCall call_;
  std::chrono::steady_clock::time_point deadline_;
  http::request<http::string_body> request_;
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::unique_ptr<Connection> connection_;
  std::array<char, 1 << 14> piece_;
};

HttpClient::HttpClient(asio::io_context& context, const Url& url, std::string api_key,
                       std::chrono::duration<double> timeout)
    : context_(context),
      url_(url),
      api_key_(std::move(api_key)),
      timeout_(std::chrono::duration_cast<std::chrono::nanoseconds>(timeout)) {
  asio::ip::tcp::resolver resolver(context);
  error_code error;
  addresses_ = resolver.resolve(url.host, url.port, error);
  require(!error, "{}: no address for '{}': {}", printable(url.text), printable(url.host), error.message());
}

HttpClient::~HttpClient() = default;

void HttpClient::send(HttpCall call) {
  std::make_shared<Call>(*this, std::move(call))->start();
}

}  // namespace atom::cli
