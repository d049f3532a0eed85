#include "server/response_stream.h"

#include <utility>

namespace atom::server {

void ResponseStream::add(std::string_view json) {
  waiting_.append("data: ").append(json).append("\n\n");
}

bool ResponseStream::flush() {
  if (waiting_.empty()) return true;
  std::string piece = std::exchange(waiting_, {});
  if (begun_) return exchange_->write(std::move(piece));
  begun_ = true;
  exchange_->begin_stream({.status = 200,
                           .content_type = "text/event-stream; charset=utf-8",
                           .body = std::move(piece),
                           .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
  return true;
}

void ResponseStream::finish() {
  add("[DONE]");
  if (flush()) exchange_->end();
}

void ResponseStream::fail(std::string_view error_json) {
  add(error_json);
  if (flush()) exchange_->end();
}

}  // namespace atom::server
