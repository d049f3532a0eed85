#include "server/http_server.h"

#include <algorithm>
#include <exception>
#include <future>
#include <thread>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "server/connection.h"
#include "server/server_context.h"

namespace atom::server {
namespace {

/// The system could not take a connection (no descriptors, no memory): others may be closed meanwhile.
constexpr std::chrono::milliseconds kAcceptPause{100};
/// Connections beyond the limit that are told so; more are closed without a word.
constexpr size_t kRefusedAtOnce = 64;

void check(const HttpOptions& options) {
  // The resolver takes it for all addresses.
  require(!options.host.empty(), "host: expected an address to listen on, found nothing");
  require(options.threads >= 1, "HTTP threads: expected at least 1, found {}", options.threads);
  require(options.max_header_bytes >= 256, "largest header: expected at least 256 bytes, found {}",
          options.max_header_bytes);
  require(options.max_body_bytes >= 0, "largest body: expected at least 0 bytes, found {}",
          options.max_body_bytes);
  require(options.max_connections >= 1, "connections: expected at least 1, found {}",
          options.max_connections);
  require(options.max_unsent_bytes >= 1, "unsent bytes: expected at least 1, found {}",
          options.max_unsent_bytes);
  for (const auto time : {options.request_timeout, options.idle_timeout, options.write_timeout}) {
    require(time.count() >= 1, "HTTP timeouts: expected at least 1 ms, found {}", time.count());
  }
}

std::string without_capital(std::string text) {
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z') text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return text;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, Handler handler)
      : context_(std::make_shared<ServerContext>((check(options), std::move(options)), std::move(handler))),
        acceptor_(asio::make_strand(io_)),
        pause_(acceptor_.get_executor()),
        work_(asio::make_work_guard(io_)) {
    listen();
    asio::post(acceptor_.get_executor(), [this] { accept(); });
    for (int i = 0; i < context_->options.threads; ++i) threads_.emplace_back([this] { run(); });
  }

  ~Impl() { stop(); }

  uint16_t port() const { return port_; }

  bool drain(std::chrono::milliseconds limit) {
    context_->draining = true;
    close_acceptor();
    for (const auto& connection : context_->connections()) connection->drain();
    return context_->wait_until_empty(limit);
  }

  void stop() {
    context_->draining = true;
    close_acceptor();
    for (const auto& connection : context_->connections()) connection->stop();
    // Ends run() when the last connection has let go of everything.
    work_.reset();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void listen() {
    const HttpOptions& options = context_->options;
    std::string host = options.host;
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    const std::string name =
        fmt::format("{}:{}", host.find(':') == std::string::npos ? host : "[" + host + "]", options.port);
    error_code error;
    const auto check_error = [&] {
      require(!error, "cannot listen on {}: {}", printable(name), without_capital(error.message()));
    };
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(host, std::to_string(options.port),
                                        tcp::resolver::passive | tcp::resolver::numeric_service, error);
    check_error();
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    check_error();
    acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    check_error();
    if (endpoint.address().is_v6()) acceptor_.set_option(asio::ip::v6_only(false), error);
    acceptor_.bind(endpoint, error);
    check_error();
    acceptor_.listen(tcp::acceptor::max_listen_connections, error);
    check_error();
    port_ = acceptor_.local_endpoint(error).port();
    check_error();
  }

  void run() {
    while (true) {
      try {
        io_.run();
        return;
      } catch (const std::exception& error) {
        spdlog::error("HTTP server: {}", error.what());
      }
    }
  }

  void accept() {
    acceptor_.async_accept(asio::make_strand(io_), [this](error_code error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) return wait_and_accept(error);
      try {
        start(std::move(socket));
      } catch (const std::exception& failure) {
        spdlog::error("a connection is dropped: {}", failure.what());
      }
      accept();
    });
  }

  void wait_and_accept(error_code error) {
    // These are of one client, which has gone again.
    if (error == asio::error::connection_aborted || error == asio::error::connection_reset) return accept();
    spdlog::warn("no connections can be accepted for now: {}", error.message());
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](error_code) {
      if (acceptor_.is_open()) accept();
    });
  }

  void start(tcp::socket socket) {
    const auto limit = static_cast<size_t>(context_->options.max_connections);
    const size_t count = context_->n_connections();
    // Without a handshake nothing can be said to a client that speaks TLS.
    if (count >= limit + kRefusedAtOnce || (count >= limit && context_->tls)) return;
    const auto connection = std::make_shared<Connection>(std::move(socket), context_, count >= limit);
    context_->add(connection);
    connection->start();
  }

  /// Once it returns, no connection comes any more. Not for the server's own threads.
  void close_acceptor() {
    if (threads_.empty()) return;
    std::promise<void> closed;
    asio::post(acceptor_.get_executor(), [&] {
      error_code ignored;
      acceptor_.close(ignored);
      pause_.cancel();
      closed.set_value();
    });
    closed.get_future().wait();
  }

  std::shared_ptr<ServerContext> context_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  uint16_t port_ = 0;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(HttpOptions options, Handler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {}

HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const {
  return impl_->port();
}

bool HttpServer::drain(std::chrono::milliseconds limit) {
  return impl_->drain(limit);
}

void HttpServer::stop() {
  impl_->stop();
}

}  // namespace atom::server
