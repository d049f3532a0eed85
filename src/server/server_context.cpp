#include "server/server_context.h"

#include <openssl/ssl.h>

#include "base/error.h"

namespace atom::server {
namespace {

std::optional<asio::ssl::context> load_tls(const HttpOptions& options) {
  if (options.tls_certificate.empty() && options.tls_key.empty()) return std::nullopt;
  require(!options.tls_certificate.empty() && !options.tls_key.empty(),
          "TLS needs both a certificate and its key");
  std::optional<asio::ssl::context> context(std::in_place, asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_compression);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  error_code error;
  // Encrypted keys are refused: nobody is there to type the password.
  context->set_password_callback([](size_t, asio::ssl::context::password_purpose) { return std::string(); },
                                 error);
  context->use_certificate_chain_file(options.tls_certificate, error);
  require(!error, "{}: cannot be read as a PEM certificate: {}", options.tls_certificate, error.message());
  context->use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
  require(!error, "{}: cannot be used as the PEM key of {}: {}", options.tls_key, options.tls_certificate,
          error.message());
  require(SSL_CTX_check_private_key(native) == 1, "{}: is not the key of the certificate {}", options.tls_key,
          options.tls_certificate);
  return context;
}

}  // namespace

ServerContext::ServerContext(HttpOptions http_options, Handler request_handler)
    : options(std::move(http_options)),
      handler(std::move(request_handler)),
      keys(options.api_keys),
      cors(options.cors_origins),
      tls(load_tls(options)) {}

bool ServerContext::is_public(std::string_view path) const {
  if (options.needs_no_key) return options.needs_no_key(path);
  return path == "/health" || path == "/ready";
}

void ServerContext::add(const std::shared_ptr<Connection>& connection) {
  const std::lock_guard lock(mutex_);
  connections_.emplace(connection.get(), connection);
}

void ServerContext::remove(Connection* connection) {
  const std::lock_guard lock(mutex_);
  connections_.erase(connection);
  if (connections_.empty()) changed_.notify_all();
}

size_t ServerContext::n_connections() const {
  const std::lock_guard lock(mutex_);
  return connections_.size();
}

std::vector<std::shared_ptr<Connection>> ServerContext::connections() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Connection>> found;
  for (const auto& [pointer, connection] : connections_) {
    if (auto alive = connection.lock()) found.push_back(std::move(alive));
  }
  return found;
}

bool ServerContext::wait_until_empty(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, [&] { return connections_.empty(); });
}

}  // namespace atom::server
