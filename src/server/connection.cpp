#include "server/connection.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <spdlog/spdlog.h>

#include "server/request_head.h"
#include "server/response_text.h"
#include "server/socket_state.h"

namespace atom::server {
namespace {

using std::chrono::milliseconds;

/// How long what a client still sends behind its last response is thrown away.
constexpr milliseconds kLinger{1000};
/// Bytes that are read ahead while a response is in progress.
constexpr size_t kReadAhead = 64 << 10;
/// Room for output that a connection keeps from one response to the next.
constexpr size_t kKeptOutput = 64 << 10;

}  // namespace

Connection::Connection(tcp::socket socket, std::shared_ptr<ServerContext> context, bool refuse)
    : socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      context_(std::move(context)),
      refuse_(refuse) {}

template <class Body>
void Connection::guarded(Body&& body) {
  if (state_ == State::closed) return;
  try {
    body();
  } catch (const std::exception& error) {
    spdlog::error("a connection is dropped: {}", error.what());
    close(true);
  }
}

void Connection::start() {
  asio::dispatch(socket_.get_executor(), [self = shared_from_this()] {
    self->guarded([&] {
      Connection& me = *self;
      // drain() and stop() see the connections that were there before them.
      if (me.context_->draining) return me.close(false);
      set_client_options(me.socket_.native_handle(), me.context_->options.write_timeout);
      me.arm(me.context_->options.request_timeout);
      if (!me.context_->tls) return me.ready();
      me.tls_.emplace(me.socket_, *me.context_->tls);
      me.tls_->async_handshake(asio::ssl::stream_base::server, [self](error_code error) {
        self->guarded([&] {
          if (!error) return self->ready();
          spdlog::debug("TLS handshake: {}", error.message());
          self->close(false);
        });
      });
    });
  });
}

void Connection::drain() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->guarded([&] {
      if (self->state_ != State::responding && self->state_ != State::lingering) self->close(false);
    });
  });
}

void Connection::stop() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->state_ != State::closed) self->close(true);
  });
}

void Connection::ready() {
  state_ = State::idle;
  if (refuse_) {
    HttpResponse response = error_response(
        503, fmt::format("the server has {} connections already", context_->options.max_connections));
    response.headers.emplace_back("Retry-After", "1");
    refuse(std::move(response));
  }
  read();
}

void Connection::read() {
  if (reading_ || input_ended_ || state_ == State::closed) return;
  if (state_ == State::responding && input_.size() >= kReadAhead) return;
  reading_ = true;
  const auto handler = [self = shared_from_this()](error_code error, size_t count) {
    self->guarded([&] { self->on_read(error, count); });
  };
  if (tls_ && !tls_ended_) {
    tls_->async_read_some(asio::buffer(chunk_), handler);
  } else {
    socket_.async_read_some(asio::buffer(chunk_), handler);
  }
}

void Connection::on_read(error_code error, size_t count) {
  reading_ = false;
  if (error) return on_read_end(error);
  if (state_ != State::lingering) {
    input_.append(chunk_.data(), count);
    parse();
  }
  read();
}

void Connection::on_read_end(error_code error) {
  if (state_ == State::lingering && tls_ && !tls_ended_) return;  // async_shutdown goes on from here
  input_ended_ = true;
  const bool half_closed = error == asio::error::eof && !tls_;
  if (!half_closed || state_ == State::lingering || state_ == State::idle)
    return close(error != asio::error::eof);
  if (state_ == State::reading) return refuse(error_response(400, "the request ends early"));
  provoke_reset();
}

void Connection::provoke_reset() {
  if (!input_ended_ || head_written_ || version_sent_) return;
  version_sent_ = true;
  output_ += kHttpVersion;
  write();
}

void Connection::parse() {
  while ((state_ == State::idle || state_ == State::reading) && !input_.empty()) {
    if (state_ == State::idle) {
      state_ = State::reading;
      request_begin_ = Clock::now();
      arm(context_->options.request_timeout);
      reader_.emplace(context_->options.max_header_bytes, context_->options.max_body_bytes);
    }
    std::string_view rest = input_;
    RequestReader::Event event;
    do {
      event = reader_->read(rest);
      if (event == RequestReader::Event::head) on_head();
    } while (event == RequestReader::Event::head && state_ == State::reading);
    input_.erase(0, input_.size() - rest.size());
    if (state_ != State::reading || event == RequestReader::Event::need_more) return;
    if (event == RequestReader::Event::refused) return refuse(reader_->refusal());
    on_request();
  }
}

void Connection::on_head() {
  const HttpRequest& request = reader_->request();
  early_response_.reset();
  if (request.method == "OPTIONS") {
    early_response_ = context_->cors.options_response(request);
  } else if (!context_->keys.empty() && !context_->is_public(request.path)) {
    const std::string_view authorization = request.header("authorization");
    if (!context_->keys.accepts(authorization))
      early_response_ = unauthorized_response(!authorization.empty());
  }
  if (!reader_->expects_continue()) return;
  if (early_response_) return refuse(*std::exchange(early_response_, std::nullopt));
  output_ += "HTTP/1.1 100 Continue\r\n\r\n";
  write();
}

std::shared_ptr<ResponseState> Connection::begin_response() {
  state_ = State::responding;
  if (reader_) {
    request_ = std::move(reader_->request());
    http11_ = reader_->http11();
    head_request_ = reader_->is_head_request();
    keep_alive_ = reader_->keep_alive();
    reader_.reset();
  } else {
    request_begin_ = Clock::now();
    keep_alive_ = false;
  }
  version_sent_ = head_written_ = chunked_ = complete_ = false;
  body_bytes_ = 0;
  response_ = std::make_shared<ResponseState>(
      [self = shared_from_this()] {
        asio::post(self->socket_.get_executor(), [self] { self->guarded([&] { self->take_output(); }); });
      },
      context_->options.max_unsent_bytes);
  set_keepalive_probes(socket_.native_handle(), true);
  check_progress();
  return response_;
}

void Connection::refuse(HttpResponse response) {
  const std::shared_ptr<ResponseState> state = begin_response();
  keep_alive_ = false;
  state->make_exchange()->send(std::move(response));
}

void Connection::on_request() {
  const std::shared_ptr<ResponseState> state = begin_response();
  std::shared_ptr<Exchange> exchange = state->make_exchange();
  if (early_response_) return exchange->send(*std::exchange(early_response_, std::nullopt));
  HttpRequest request = request_;
  request.body = std::exchange(request_.body, {});
  provoke_reset();
  if (state_ == State::closed) return;
  try {
    context_->handler(std::move(request), std::move(exchange));
  } catch (const std::exception& error) {
    // The exchange is gone with it, which the client is told as status 500.
    spdlog::error("{} {}: {}", request_.method, request_.path, error.what());
  }
}

void Connection::take_output() {
  if (!response_) return;
  ResponseState::Output output = response_->take();
  if (output.too_slow) {
    spdlog::debug("{}: the client reads too slowly", request_.path);
    return close(true);
  }
  if (output.abandoned && !head_written_ && !output.head) {
    output.head = error_response(500, "the request was given up");
    output.complete = true;
  } else if (output.abandoned) {
    return close(true);
  }
  if (output.head) append_head(std::move(*output.head), output.streamed);
  if (!output.body.empty()) append_body(output.body);
  if (output.complete) {
    complete_ = true;
    if (chunked_ && !head_request_) output_ += kLastChunk;
  }
  write();
}

void Connection::append_head(HttpResponse response, bool streamed) {
  context_->cors.add_headers(request_, response);
  const bool chunked = streamed && http11_;
  if (context_->draining || (input_ended_ && input_.empty()) || (streamed && !http11_)) keep_alive_ = false;
  const Framing framing = !streamed ? Framing::length : chunked ? Framing::chunks : Framing::close;
  const std::string_view connection = !keep_alive_ ? "close" : http11_ ? "" : "keep-alive";
  const std::string head = format_head(response, framing, connection);
  output_.append(head, version_sent_ ? kHttpVersion.size() : 0);
  head_written_ = true;
  chunked_ = chunked;
  status_ = response.status;
  if (!response.body.empty()) append_body(response.body);
  if (context_->options.on_response) context_->options.on_response(request_.path, status_);
}

void Connection::append_body(std::string_view piece) {
  if (head_request_ || status_ == 204 || status_ == 304) return;
  body_bytes_ += static_cast<int64_t>(piece.size());
  if (chunked_) {
    append_chunk(output_, piece);
  } else {
    output_ += piece;
  }
}

void Connection::write() {
  if (write_pending_ || state_ == State::closed) return;
  if (written_ == writing_.size()) {
    writing_.clear();
    written_ = 0;
    std::swap(writing_, output_);
  }
  if (writing_.empty()) {
    if (complete_ && state_ == State::responding) finish_response();
    return;
  }
  write_pending_ = true;
  if (!stalled_since_) stalled_since_ = Clock::now();
  const auto rest = asio::buffer(writing_) + written_;
  const auto handler = [self = shared_from_this()](error_code error, size_t count) {
    self->guarded([&] { self->on_write(error, count); });
  };
  if (tls_) {
    tls_->async_write_some(rest, handler);
  } else {
    socket_.async_write_some(rest, handler);
  }
}

void Connection::on_write(error_code error, size_t count) {
  write_pending_ = false;
  if (error) return close(true);
  written_ += count;
  handed_over_ += static_cast<int64_t>(count);
  if (response_) response_->set_queued(static_cast<int64_t>(writing_.size() - written_ + output_.size()));
  write();
}

void Connection::finish_response() {
  spdlog::debug("{} {} {}: {} bytes in {:.1f} ms", head_request_ ? "HEAD" : request_.method, request_.path,
                status_, body_bytes_,
                std::chrono::duration<double, std::milli>(Clock::now() - request_begin_).count());
  std::exchange(response_, nullptr)->close();
  set_keepalive_probes(socket_.native_handle(), false);
  request_ = {};
  complete_ = false;
  for (std::string* buffer : {&output_, &writing_}) {
    if (buffer->capacity() > kKeptOutput) buffer->shrink_to_fit();
  }
  if (!keep_alive_ || context_->draining || (input_ended_ && input_.empty())) return linger();
  state_ = State::idle;
  arm(context_->options.idle_timeout);
  parse();
  if (state_ != State::responding && input_ended_) return linger();
  read();
}

void Connection::arm(milliseconds time) {
  // Cancels what was armed before.
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this()](error_code error) {
    // One that had expired already when it was cancelled is told by the new time.
    if (error || self->timer_.expiry() > Clock::now()) return;
    self->guarded([&] { self->on_timer(); });
  });
}

void Connection::on_timer() {
  switch (state_) {
    case State::handshake:
    case State::idle:
    case State::lingering:
      return close(false);
    case State::reading:
      return refuse(error_response(408, fmt::format("the request was not complete within {} ms",
                                                    context_->options.request_timeout.count())));
    case State::responding:
      return check_progress();
    case State::closed:
      return;
  }
}

void Connection::check_progress() {
  const int64_t waiting = unacknowledged_bytes(socket_.native_handle());
  const int64_t taken = handed_over_ - waiting;
  const Clock::time_point now = Clock::now();
  if (waiting == 0 && !write_pending_) {
    stalled_since_.reset();
  } else if (taken != taken_ || !stalled_since_) {
    stalled_since_ = now;
  } else if (now - *stalled_since_ >= context_->options.write_timeout) {
    spdlog::debug("{}: the client takes nothing", request_.path);
    return close(true);
  }
  taken_ = taken;
  if (is_broken(socket_.native_handle())) return close(true);
  arm(std::max(context_->options.write_timeout / 4, milliseconds(5)));
}

void Connection::linger() {
  state_ = State::lingering;
  arm(kLinger);
  if (!tls_) return linger_without_tls();
  tls_->async_shutdown(
      [self = shared_from_this()](error_code) { self->guarded([&] { self->linger_without_tls(); }); });
}

void Connection::linger_without_tls() {
  tls_ended_ = true;
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  if (input_ended_) return close(false);
  read();
}

void Connection::close(bool reset) {
  if (state_ == State::closed) return;
  state_ = State::closed;
  error_code ignored;
  timer_.cancel();
  if (reset) socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
  if (response_) {
    std::exchange(response_, nullptr)->close();
  }
  context_->remove(this);
}

}  // namespace atom::server
