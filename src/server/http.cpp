#include "server/http.h"

#include <nlohmann/json.hpp>

namespace atom::server {
namespace {

std::string_view error_type(unsigned status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

nlohmann::ordered_json or_null(std::optional<std::string_view> text) {
  return text ? nlohmann::ordered_json(*text) : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

HttpResponse error_response(unsigned status, std::string_view message, std::optional<std::string_view> param,
                            std::optional<std::string_view> code) {
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", message},
                                         {"type", error_type(status)},
                                         {"param", or_null(param)},
                                         {"code", or_null(code)}}}};
  HttpResponse response;
  response.status = status;
  // The message may quote what a client sent.
  response.body = body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return response;
}

}  // namespace atom::server
