#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "server/http.h"

namespace atom::server {

/// Reads one request from the bytes of a connection, as they come.
class RequestReader {
 public:
  RequestReader(int64_t max_header_bytes, int64_t max_body_bytes);
  ~RequestReader();
  RequestReader(RequestReader&&) noexcept;
  RequestReader& operator=(RequestReader&&) noexcept;

  enum class Event {
    need_more,  // everything that could be used has been
    head,       // the head is there and sound; the body (if any) comes with the next calls
    complete,
    refused  // see refusal()
  };
  /// Takes bytes off the front of `input`. To be called again, with what is left, behind `head`.
  Event read(std::string_view& input);

  /// As far as it has been read. The path is empty until it is known.
  HttpRequest& request() { return request_; }
  const HttpResponse& refusal() const { return refusal_; }
  bool is_head_request() const { return head_request_; }
  bool http11() const { return http11_; }
  /// Whether the connection may be used again.
  bool keep_alive() const { return keep_alive_; }
  /// Whether the client waits for "100 Continue" before it sends the body.
  bool expects_continue() const { return expects_continue_; }

 private:
  struct Parser;

  Event refuse(unsigned status, std::string_view message);
  /// What the parser knows of the head goes to `request_`.
  void take_head();
  Event finish_head();
  Event finish();

  std::unique_ptr<Parser> parser_;
  int64_t max_header_bytes_;
  int64_t max_body_bytes_;
  int64_t header_bytes_ = 0;
  int empty_lines_ = 0;
  HttpRequest request_;
  HttpResponse refusal_;
  bool head_done_ = false;
  bool head_request_ = false;
  bool http11_ = true;
  bool keep_alive_ = false;
  bool expects_continue_ = false;
};

}  // namespace atom::server
