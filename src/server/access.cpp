#include "server/access.h"

#include <algorithm>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "server/request_head.h"

namespace atom::server {

ApiKeys::Digest ApiKeys::digest(std::string_view key) {
  Digest digest{};
  unsigned length = 0;
  require(EVP_Digest(key.data(), key.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1 &&
              length == digest.size(),
          "SHA-256 is not available");
  return digest;
}

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    // Not the key itself in the message: that would end in logs.
    require(!key.empty(), "an API key is empty");
    require(std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f && c != ','; }),
            "an API key has other than visible ASCII characters (or a comma)");
    digests_.push_back(digest(key));
  }
}

bool ApiKeys::accepts(std::string_view authorization) const {
  if (empty()) return true;
  const Digest given = digest(bearer_token(authorization).value_or(std::string_view()));
  int found = 0;
  for (const Digest& key : digests_) {
    found |= static_cast<int>(CRYPTO_memcmp(key.data(), given.data(), key.size()) == 0);
  }
  return found != 0;
}

HttpResponse unauthorized_response(bool has_authorization) {
  HttpResponse response =
      error_response(401,
                     has_authorization ? "Incorrect API key provided."
                                       : "No API key provided: send it as 'Authorization: Bearer KEY'.",
                     {}, "invalid_api_key");
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

Cors::Cors(std::vector<std::string> origins) : origins_(std::move(origins)) {
  for (const std::string& origin : origins_) {
    if (origin == "*") {
      any_ = true;
      continue;
    }
    const size_t scheme = origin.find("://");
    require(scheme != std::string::npos && scheme > 0 && origin.size() > scheme + 3 &&
                origin.find_first_of("/?#, ", scheme + 3) == std::string::npos &&
                std::all_of(origin.begin(), origin.end(), [](char c) { return c > 0x20 && c < 0x7f; }),
            "CORS origin: expected \"*\" or one like https://example.org:8080, found '{}'",
            printable(origin));
  }
}

bool Cors::allows(std::string_view origin) const {
  return !origin.empty() &&
         (any_ || std::any_of(origins_.begin(), origins_.end(), [&](const std::string& allowed) {
            return equal_ignoring_case(allowed, origin);
          }));
}

void Cors::add_headers(const HttpRequest& request, HttpResponse& response) const {
  if (origins_.empty()) return;
  const std::string_view origin = request.header("origin");
  if (!any_) response.headers.emplace_back("Vary", "Origin");
  if (!allows(origin)) return;
  response.headers.emplace_back("Access-Control-Allow-Origin", any_ ? "*" : std::string(origin));
  response.headers.emplace_back("Access-Control-Expose-Headers", "Retry-After");
}

HttpResponse Cors::options_response(const HttpRequest& request) const {
  constexpr std::string_view kMethods = "GET, HEAD, POST, OPTIONS";
  HttpResponse response;
  response.status = 204;
  response.headers.emplace_back("Allow", kMethods);
  const bool preflight = !request.header("access-control-request-method").empty();
  if (!preflight || !allows(request.header("origin"))) return response;
  response.headers.emplace_back("Access-Control-Allow-Methods", kMethods);
  const std::string_view wanted = request.header("access-control-request-headers");
  if (is_token_list(wanted)) response.headers.emplace_back("Access-Control-Allow-Headers", wanted);
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

}  // namespace atom::server
