#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/http.h"

namespace atom::server {

/// Server-sent events as OpenAI's clients read them: "data: JSON" and an empty line each, "data: [DONE]" at
/// the end. The response begins with the first event that goes out, so that until then an error can still be
/// a response of its own. Not thread-safe.
class ResponseStream {
 public:
  explicit ResponseStream(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}

  /// Adds an event, one line of JSON. It goes out with the next flush.
  void add(std::string_view json);
  /// False: the client has gone.
  bool flush();
  /// Whether the response's head is out.
  bool begun() const { return begun_; }

  /// The last words: what has been added, [DONE], and the end.
  void finish();
  /// The end by an error, in the middle of it.
  void fail(std::string_view error_json);

 private:
  std::shared_ptr<Exchange> exchange_;
  std::string waiting_;
  bool begun_ = false;
};

}  // namespace atom::server
