#include "server/api.h"

#include <array>
#include <atomic>
#include <random>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "server/openapi.h"
#include "server/reply.h"
#include "server/service.h"

namespace atom::server {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

/// The paths that are answered. /v1/models/{model} stands for all that begin like it.
struct Route {
  std::string_view path;
  std::string_view method;
};
constexpr std::array kRoutes = {
    Route{"/v1/completions", "POST"}, Route{"/v1/chat/completions", "POST"},
    Route{"/v1/models", "GET"},       Route{"/v1/models/{model}", "GET"},
    Route{"/tokenize", "POST"},       Route{"/detokenize", "POST"},
    Route{"/health", "GET"},          Route{"/ready", "GET"},
    Route{"/metrics", "GET"},         Route{"/openapi.json", "GET"},
};

const Route* route_of(std::string_view path) {
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) path = "/v1/models/{model}";
  for (const Route& route : kRoutes) {
    if (route.path == path) return &route;
  }
  return nullptr;
}

size_t longest_token(const text::Tokenizer& tokenizer) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    longest = std::max(longest, tokenizer.token_bytes(id).size());
  }
  return longest;
}

HttpResponse json_response(const Json& body) {
  return {.body = dump(body)};
}

HttpResponse retry_later(unsigned status, std::string_view message, const char* seconds) {
  HttpResponse response = error_response(status, message);
  response.headers.emplace_back("Retry-After", seconds);
  return response;
}

/// The field that an error of the engine begins with: "n: expected ...".
std::optional<std::string_view> field_of(std::string_view message) {
  const size_t end = message.find(':');
  constexpr std::string_view kNames = "abcdefghijklmnopqrstuvwxyz_";
  if (end == 0 || end == std::string_view::npos || message.find_first_not_of(kNames) != end) return {};
  return message.substr(0, end);
}

/// Bodies that do not say that they are JSON. Pages of other origins can send those without asking first.
void check_content_type(const HttpRequest& request) {
  std::string type(request.header("content-type").substr(0, request.header("content-type").find(';')));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  for (char& c : type) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (type == "application/json" || type.ends_with("+json")) {
    return;
  }
  throw RequestError(415, fmt::format("content-type: expected application/json, found {}{}", printable(type),
                                      type == "application/x-www-form-urlencoded"
                                          ? " (curl's default; add -H 'Content-Type: application/json')"
                                          : ""));
}

}  // namespace

class Api::Impl {
 public:
  Impl(std::unique_ptr<Submitter> submitter, const text::Tokenizer& tokenizer, ApiOptions options)
      : service_{.submitter = std::move(submitter),
                 .tokenizer = tokenizer,
                 .options = std::move(options),
                 .max_token_bytes = longest_token(tokenizer)},
        id_seed_((uint64_t{std::random_device()()} << 32) | std::random_device()()) {}

  void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
    try {
      answer(std::move(request), exchange);
    } catch (const RequestError& error) {
      exchange->send(error_response(error.status(), error.what(), given(error.param()), given(error.code())));
    } catch (const Overloaded& error) {
      exchange->send(retry_later(429, error.what(), "1"));
    } catch (const Unavailable& error) {
      exchange->send(retry_later(503, error.what(), "5"));
    } catch (const Error& error) {
      exchange->send(error_response(400, error.what(), field_of(error.what())));
    } catch (const std::exception& error) {
      spdlog::error("a request could not be answered: {}", error.what());
      exchange->send(error_response(500, "the server could not answer the request"));
    }
  }

  void count_response(std::string_view path, unsigned status) {
    const Route* route = route_of(path);
    service_.metrics.count_response(route ? route->path : "other", status);
  }

  void set_draining() { draining_ = true; }

 private:
  static std::optional<std::string_view> given(const std::string& text) {
    return text.empty() ? std::nullopt : std::optional<std::string_view>(text);
  }

  void answer(HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
    const auto arrival = std::chrono::steady_clock::now();
    const Route* route = route_of(request.path);
    if (!route) throw RequestError(404, fmt::format("path: {} is unknown", printable(request.path)));
    if (route->method != request.method) {
      HttpResponse response = error_response(405, fmt::format("method: {} expects {}, found {}", route->path,
                                                              route->method, printable(request.method, 20)));
      response.headers.emplace_back("Allow", route->method);
      exchange->send(std::move(response));
      return;
    }
    if (route->method == "GET") {
      exchange->send(get(route->path, request.path));
      return;
    }
    check_content_type(request);
    Call call{parse_body(request.body), exchange, arrival, next_id()};
    request.body = {};
    if (route->path == "/v1/completions") {
      complete(service_, std::move(call));
    } else if (route->path == "/v1/chat/completions") {
      chat(service_, std::move(call));
    } else if (route->path == "/tokenize") {
      exchange->send(json_response(tokenize(service_, call.body)));
    } else {
      exchange->send(json_response(detokenize(service_, call.body)));
    }
  }

  HttpResponse get(std::string_view route, std::string_view path) {
    if (route == "/v1/models") return json_response({{"object", "list"}, {"data", {model_json()}}});
    if (route == "/v1/models/{model}") {
      const std::string_view name = path.substr(kModelPrefix.size());
      if (name == service_.options.model_name) return json_response(model_json());
      throw RequestError(404, fmt::format("model: \"{}\" is not served here", printable(name)), "model",
                         "model_not_found");
    }
    if (route == "/metrics") {
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
              .body = service_.metrics.text(service_.submitter->stats())};
    }
    if (route == "/openapi.json") return json_response(openapi_description(service_.options));
    // What is left is /health and /ready.
    if (service_.submitter->stats().failed) return error_response(503, "the engine has failed");
    if (route == "/ready" && draining_) return retry_later(503, "the server is shutting down", "5");
    return json_response({{"status", "ok"}});
  }

  Json model_json() const {
    return {{"id", service_.options.model_name},
            {"object", "model"},
            {"created", service_.options.created},
            {"owned_by", "atom"},
            {"max_model_len", service_.submitter->context()}};
  }

  std::string next_id() {
    const uint64_t i = ids_.fetch_add(1, std::memory_order_relaxed);
    return fmt::format("{:016x}{:08x}", random_word(id_seed_, i), i & 0xFFFFFFFF);
  }

  Service service_;
  std::atomic<bool> draining_{false};
  const uint64_t id_seed_;
  std::atomic<uint64_t> ids_{0};
};

Api::Api(std::unique_ptr<Submitter> submitter, const text::Tokenizer& tokenizer, ApiOptions options)
    : impl_(std::make_unique<Impl>(std::move(submitter), tokenizer, std::move(options))) {}

Api::~Api() = default;

void Api::handle(HttpRequest request, std::shared_ptr<Exchange> exchange) {
  impl_->handle(std::move(request), exchange);
}

void Api::count_response(std::string_view path, unsigned status) {
  impl_->count_response(path, status);
}

void Api::set_draining() {
  impl_->set_draining();
}

}  // namespace atom::server
