#include "server/request_reader.h"

#include <algorithm>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "server/request_head.h"

namespace atom::server {
namespace http = boost::beast::http;
namespace {

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

struct RequestReader::Parser : http::request_parser<http::string_body> {};

RequestReader::RequestReader(int64_t max_header_bytes, int64_t max_body_bytes)
    : parser_(std::make_unique<Parser>()),
      max_header_bytes_(max_header_bytes),
      max_body_bytes_(max_body_bytes) {
  parser_->header_limit(
      static_cast<uint32_t>(std::min<int64_t>(max_header_bytes, std::numeric_limits<uint32_t>::max())));
  parser_->body_limit(static_cast<uint64_t>(max_body_bytes));
}

RequestReader::~RequestReader() = default;
RequestReader::RequestReader(RequestReader&&) noexcept = default;
RequestReader& RequestReader::operator=(RequestReader&&) noexcept = default;

RequestReader::Event RequestReader::refuse(unsigned status, std::string_view message) {
  if (!head_done_) take_head();
  refusal_ = error_response(status, message);
  return Event::refused;
}

RequestReader::Event RequestReader::read(std::string_view& input) {
  // Empty lines in front of a request are passed over (RFC 9112, section 2.2), but not without end.
  constexpr int kEmptyLines = 4;
  while (!head_done_ && header_bytes_ == 0 && empty_lines_ < kEmptyLines && input.substr(0, 2) == "\r\n") {
    input.remove_prefix(2);
    ++empty_lines_;
  }
  // Half of one: the parser would take it for a method.
  if (!head_done_ && header_bytes_ == 0 && empty_lines_ < kEmptyLines && input == "\r")
    return Event::need_more;
  if (head_done_ && parser_->is_done()) return finish();
  while (!input.empty()) {
    boost::system::error_code error;
    const size_t used = parser_->put({input.data(), input.size()}, error);
    input.remove_prefix(used);
    if (!head_done_) header_bytes_ += static_cast<int64_t>(used);
    const int64_t waiting = static_cast<int64_t>(input.size());
    const bool too_long =
        error == http::error::header_limit ||
        (!head_done_ && error == http::error::need_more && header_bytes_ + waiting > max_header_bytes_) ||
        (!head_done_ && header_bytes_ > max_header_bytes_);
    if (too_long) {
      return refuse(431,
                    fmt::format("the request line and headers are longer than {} bytes", max_header_bytes_));
    }
    if (error == http::error::need_more) {
      // Extensions of a chunk, and what follows the last chunk.
      if (head_done_ && waiting > max_header_bytes_) return refuse(400, "a chunk's header is too long");
      return Event::need_more;
    }
    if (error == http::error::body_limit) {
      return refuse(413, fmt::format("the body is larger than {} bytes", max_body_bytes_));
    }
    if (error) return refuse(400, fmt::format("the request is not HTTP: {}", error.message()));
    if (!head_done_ && parser_->is_header_done()) return finish_head();
    if (parser_->is_done()) return finish();
  }
  return Event::need_more;
}

void RequestReader::take_head() {
  const auto& message = parser_->get();
  request_ = {};
  request_.method = view(message.method_string());
  for (const auto& field : message) {
    std::string name(view(field.name_string()));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    request_.headers.emplace_back(std::move(name), view(field.value()));
  }
  if (!parse_target(view(message.target()), request_).empty()) request_.path.clear();
  head_request_ = request_.method == "HEAD";
  if (head_request_) request_.method = "GET";
}

RequestReader::Event RequestReader::finish_head() {
  take_head();
  head_done_ = true;
  http11_ = parser_->get().version() >= 11;
  if (const std::string fault = parse_target(view(parser_->get().target()), request_); !fault.empty()) {
    request_.path.clear();
    return refuse(400, fault);
  }
  if (const std::string fault = check_headers(request_, http11_); !fault.empty()) return refuse(400, fault);
  const std::string_view expect = request_.header("expect");
  if (!expect.empty() && http11_) {
    if (!equal_ignoring_case(expect, "100-continue")) return refuse(417, "'expect' may only be 100-continue");
    expects_continue_ = !parser_->is_done();
  }
  keep_alive_ = parser_->keep_alive();
  return Event::head;
}

RequestReader::Event RequestReader::finish() {
  request_.body = std::move(parser_->get().body());
  return Event::complete;
}

}  // namespace atom::server
