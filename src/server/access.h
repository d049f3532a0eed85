#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

/// Who may ask: API keys, and pages of other origins (CORS).
namespace atom::server {

/// The keys that open the server. Only their digests are kept; a comparison takes the same time whatever of
/// the key is right and however many there are.
class ApiKeys {
 public:
  /// Throws Error for a key that no header could bring (empty, or with other than visible ASCII characters).
  explicit ApiKeys(const std::vector<std::string>& keys);

  /// Without keys, everybody may.
  bool empty() const { return digests_.empty(); }
  /// Whether an "Authorization" header brings one of the keys.
  bool accepts(std::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest digest(std::string_view key);

  std::vector<Digest> digests_;
};

/// The refusal of a request without a key.
HttpResponse unauthorized_response(bool has_authorization);

/// Cross-origin resource sharing (the Fetch standard, section 3.2): which pages may read responses.
class Cors {
 public:
  /// Throws Error for what is not an origin ("https://host", "http://host:port") nor "*".
  explicit Cors(std::vector<std::string> origins);

  /// The headers that let the page of the request's origin read the response; none where it may not.
  void add_headers(const HttpRequest& request, HttpResponse& response) const;
  /// The answer to OPTIONS: methods, and for a preflight request of an allowed origin its permission.
  HttpResponse options_response(const HttpRequest& request) const;

 private:
  bool allows(std::string_view origin) const;

  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace atom::server
