#include "server/response_state.h"

#include <cassert>
#include <utility>

namespace atom::server {

class ResponseState::Handle final : public Exchange {
 public:
  explicit Handle(std::shared_ptr<ResponseState> state) : state_(std::move(state)) {}
  ~Handle() override { state_->abandon(); }

  void send(HttpResponse response) override { state_->send(std::move(response), false); }
  void begin_stream(HttpResponse response) override { state_->send(std::move(response), true); }
  bool write(std::string piece) override { return state_->write(std::move(piece)); }
  void end() override { state_->end(); }
  void on_closed(std::function<void()> closed) override { state_->on_closed(std::move(closed)); }

 private:
  std::shared_ptr<ResponseState> state_;
};

ResponseState::ResponseState(std::function<void()> wake, int64_t max_unsent)
    : wake_(std::move(wake)), max_unsent_(max_unsent) {}

std::shared_ptr<Exchange> ResponseState::make_exchange() {
  return std::make_shared<Handle>(shared_from_this());
}

void ResponseState::wake() {
  if (closed_ || woken_) return;
  woken_ = true;
  wake_();
}

void ResponseState::send(HttpResponse response, bool streamed) {
  const std::lock_guard lock(mutex_);
  assert(!begun_);
  begun_ = true;
  done_ = !streamed;
  if (done_) closed_callback_ = nullptr;
  if (closed_) return;
  output_.head = std::move(response);
  output_.streamed = streamed;
  output_.complete = !streamed;
  wake();
}

bool ResponseState::write(std::string piece) {
  const std::lock_guard lock(mutex_);
  assert(begun_ && !done_);
  if (closed_ || output_.too_slow) return false;
  if (piece.empty()) return true;
  const int64_t unsent = queued_ + static_cast<int64_t>(output_.body.size());
  output_.body += piece;
  // A piece that is larger by itself is not the client's fault.
  output_.too_slow = unsent > 0 && unsent + static_cast<int64_t>(piece.size()) > max_unsent_;
  wake();
  return !output_.too_slow;
}

void ResponseState::end() {
  const std::lock_guard lock(mutex_);
  assert(begun_ && !done_);
  done_ = true;
  output_.complete = true;
  closed_callback_ = nullptr;
  wake();
}

void ResponseState::abandon() {
  const std::lock_guard lock(mutex_);
  closed_callback_ = nullptr;
  if (done_) return;
  done_ = true;
  output_.abandoned = true;
  wake();
}

void ResponseState::on_closed(std::function<void()> closed) {
  {
    const std::lock_guard lock(mutex_);
    if (done_) return;
    if (!closed_) {
      closed_callback_ = std::move(closed);
      return;
    }
  }
  closed();
}

ResponseState::Output ResponseState::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  queued_ += static_cast<int64_t>(output_.body.size());
  Output taken = std::move(output_);
  output_ = {};
  output_.streamed = taken.streamed;
  output_.too_slow = taken.too_slow;
  return taken;
}

void ResponseState::set_queued(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  queued_ = bytes;
}

void ResponseState::close() {
  std::function<void()> callback, wake;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    wake = std::exchange(wake_, nullptr);
    callback = std::exchange(closed_callback_, nullptr);
    output_ = {};
  }
  if (callback) callback();
}

}  // namespace atom::server
