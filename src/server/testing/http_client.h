#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.h"

namespace atom::test_support {

struct ClientResponse {
  unsigned status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // without chunk framing
  bool complete = false;                       // the body is there as far as its head said
};

/// A blocking HTTP client over one connection, which sends what it is told, well-formed or not.
class HttpClient {
 public:
  /// Connects to a local server. `receive_buffer`: bytes that the system keeps for it; 0: as it likes.
  explicit HttpClient(uint16_t port, bool tls = false, int receive_buffer = 0,
                      const char* host = "127.0.0.1");
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// False when the server has gone.
  bool send(std::string_view bytes);
  /// Reads one response. Its status is 0 when the server sends none, within `limit`.
  ClientResponse read_response(bool head = false,
                               std::chrono::milliseconds limit = std::chrono::milliseconds(10'000));
  ClientResponse request(std::string_view bytes) {
    send(bytes);
    return read_response();
  }
  /// More of what the server sends; empty: it closed, or nothing came within `limit`.
  std::string read_some(std::chrono::milliseconds limit = std::chrono::milliseconds(10'000));
  /// Whether the server closes the connection within `limit`. What it sends meanwhile is thrown away.
  bool closes_within(std::chrono::milliseconds limit);

  /// Ends the sending side alone (FIN).
  void half_close();
  /// Closes both (FIN; RST when the server sends more).
  void close();
  /// Breaks the connection off (RST).
  void reset();

  /// Whether the TLS handshake went well (always, without TLS).
  bool ready() const { return ready_; }
  int socket() const { return socket_; }

 private:
  int socket_ = -1;
  SSL_CTX* context_ = nullptr;
  SSL* tls_ = nullptr;
  bool ready_ = true;
  bool ended_ = false;
  std::string input_;
};

inline std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

inline int connect_to(uint16_t port, int receive_buffer, const char* host) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  require(::getaddrinfo(host, std::to_string(port).c_str(), &hints, &found) == 0, "no address {}", host);
  const int socket = ::socket(found->ai_family, SOCK_STREAM, 0);
  if (receive_buffer > 0) {
    ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  const bool connected = ::connect(socket, found->ai_addr, found->ai_addrlen) == 0;
  ::freeaddrinfo(found);
  if (!connected) ::close(socket);
  require(connected, "cannot connect to {}:{}", host, port);
  const int yes = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  return socket;
}

inline HttpClient::HttpClient(uint16_t port, bool tls, int receive_buffer, const char* host) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  socket_ = connect_to(port, receive_buffer, host);
  if (!tls) return;
  context_ = SSL_CTX_new(TLS_client_method());
  tls_ = SSL_new(context_);
  SSL_set_fd(tls_, socket_);
  ready_ = SSL_connect(tls_) == 1;
}

inline HttpClient::~HttpClient() {
  close();
  if (tls_ != nullptr) SSL_free(tls_);
  if (context_ != nullptr) SSL_CTX_free(context_);
}

inline bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = tls_ != nullptr ? SSL_write(tls_, bytes.data(), static_cast<int>(bytes.size()))
                                       : ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

inline std::string HttpClient::read_some(std::chrono::milliseconds limit) {
  if (tls_ == nullptr || SSL_pending(tls_) == 0) {
    pollfd poll = {socket_, POLLIN, 0};
    if (::poll(&poll, 1, static_cast<int>(limit.count())) <= 0) return {};
  }
  char buffer[1 << 16];
  const auto count =
      tls_ != nullptr ? SSL_read(tls_, buffer, sizeof(buffer)) : ::recv(socket_, buffer, sizeof(buffer), 0);
  if (count <= 0) {
    ended_ = true;
    return {};
  }
  return std::string(buffer, static_cast<size_t>(count));
}

inline bool HttpClient::closes_within(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!ended_) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    read_some(left);
  }
  return true;
}

inline ClientResponse HttpClient::read_response(bool head, std::chrono::milliseconds limit) {
  ClientResponse response;
  const auto more = [&] {
    const std::string piece = read_some(limit);
    input_ += piece;
    return !piece.empty();
  };
  size_t end;
  while ((end = input_.find("\r\n\r\n")) == std::string::npos) {
    if (!more()) return response;
  }
  const std::string text = input_.substr(0, end + 2);
  input_.erase(0, end + 4);
  if (text.rfind("HTTP/1.1 ", 0) != 0) return response;
  response.status = static_cast<unsigned>(std::atoi(text.c_str() + 9));
  for (size_t begin = text.find("\r\n") + 2; begin < text.size();) {
    const size_t stop = text.find("\r\n", begin), colon = text.find(": ", begin);
    response.headers[lower(text.substr(begin, colon - begin))] = text.substr(colon + 2, stop - colon - 2);
    begin = stop + 2;
  }
  if (head || response.status == 204 || response.status == 100) {
    response.complete = true;
    return response;
  }
  if (response.headers.count("content-length") > 0) {
    const size_t length = std::stoul(response.headers["content-length"]);
    while (input_.size() < length && more()) {
    }
    response.complete = input_.size() >= length;
    response.body = input_.substr(0, length);
    input_.erase(0, response.body.size());
    return response;
  }
  if (response.headers.count("transfer-encoding") == 0) {
    while (more()) {
    }
    response.complete = ended_;
    response.body = std::exchange(input_, {});
    return response;
  }
  while (true) {
    size_t stop;
    while ((stop = input_.find("\r\n")) == std::string::npos) {
      if (!more()) return response;
    }
    const size_t length = std::stoul(input_.substr(0, stop), nullptr, 16);
    while (input_.size() < stop + 2 + length + 2) {
      if (!more()) return response;
    }
    response.body += input_.substr(stop + 2, length);
    require(input_.substr(stop + 2 + length, 2) == "\r\n", "a chunk does not end where it should");
    input_.erase(0, stop + 2 + length + 2);
    if (length == 0) break;
  }
  response.complete = true;
  return response;
}

inline void HttpClient::half_close() {
  ::shutdown(socket_, SHUT_WR);
}

inline void HttpClient::close() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

inline void HttpClient::reset() {
  const linger now = {1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close();
}

/// "GET /path HTTP/1.1" with a Host and `headers` ("name: value\r\n" each).
inline std::string get(std::string_view path, std::string_view headers = {}) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: test\r\n{}\r\n", path, headers);
}

inline std::string post(std::string_view path, std::string_view body, std::string_view headers = {}) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{}\r\n{}", path, body.size(),
                     headers, body);
}

}  // namespace atom::test_support
