#include "load_client.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "base/interrupt.h"

namespace atom::cli {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using boost::system::error_code;

/// Of a response that is an error.
constexpr size_t kMaxErrorBytes = 1 << 16;
/// Of one event of a stream.
constexpr size_t kMaxEventBytes = 1 << 24;

/// What an error response in OpenAI's form, or in another, says.
std::string message_of(const Json& json) {
  if (!json.is_object()) return {};
  const auto error = json.find("error");
  if (error == json.end()) return {};
  if (error->is_string()) return error->get<std::string>();
  if (!error->is_object() || !error->contains("message")) return error->dump();
  const Json& message = (*error)["message"];
  return message.is_string() ? message.get<std::string>() : message.dump();
}

Json parse(std::string_view text) {
  return Json::parse(text.begin(), text.end(), nullptr, false);
}

int64_t count_in(const Json& usage, const char* name, int64_t otherwise) {
  const auto field = usage.find(name);
  return field != usage.end() && field->is_number_integer() ? field->get<int64_t>() : otherwise;
}

/// Reads the events of one stream into an Outcome.
class StreamReader {
 public:
  explicit StreamReader(Outcome& outcome) : outcome_(outcome) {}

  void read(unsigned status, std::string_view piece, double now) {
    if (status != 200) {
      refusal_.append(piece.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, refusal_.size())));
      return;
    }
    while (!piece.empty()) {
      const size_t end = piece.find('\n');
      if (line_.size() <= kMaxEventBytes) line_.append(piece.substr(0, end));
      if (end == std::string_view::npos) return;
      if (!line_.empty() && line_.back() == '\r') line_.pop_back();
      line(line_, now);
      line_.clear();
      piece.remove_prefix(end + 1);
    }
  }

  void finish(unsigned status, const std::string& error) {
    outcome_.status = status;
    if (!outcome_.error.empty()) return;
    if (!error.empty()) {
      outcome_.error = error;
    } else if (status != 200) {
      const std::string message = message_of(parse(refusal_));
      outcome_.error =
          fmt::format("status {}{}{}", status, message.empty() ? "" : ": ", printable(message, 200));
    } else if (!done_) {
      outcome_.error =
          events_ == 0 ? "the response is no stream of events" : "the stream ended before [DONE]";
    }
  }

 private:
  void line(std::string_view line, double now) {
    constexpr std::string_view kData = "data:";
    if (line.substr(0, kData.size()) != kData) return;
    line.remove_prefix(kData.size());
    if (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    ++events_;
    if (line == "[DONE]") {
      done_ = true;
      return;
    }
    const Json event = parse(line);
    if (!event.is_object()) {
      fail("an event is not a JSON object");
    } else if (const std::string message = message_of(event); !message.empty()) {
      fail(printable(message, 200));
    } else {
      read_choices(event, now);
      read_usage(event);
    }
  }

  void read_choices(const Json& event, double now) {
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array()) return;
    for (const Json& choice : *choices) {
      if (!choice.is_object()) continue;
      if (has_text(choice, "text") || (choice.contains("delta") && has_text(choice["delta"], "content"))) {
        outcome_.pieces.push_back(now);
      }
      const auto reason = choice.find("finish_reason");
      if (reason != choice.end() && reason->is_string()) outcome_.finish_reason = reason->get<std::string>();
    }
  }

  void read_usage(const Json& event) {
    const auto usage = event.find("usage");
    if (usage == event.end() || !usage->is_object()) return;
    outcome_.prompt_tokens = count_in(*usage, "prompt_tokens", outcome_.prompt_tokens);
    outcome_.completion_tokens = count_in(*usage, "completion_tokens", outcome_.completion_tokens);
    const auto details = usage->find("prompt_tokens_details");
    if (details != usage->end() && details->is_object()) {
      outcome_.cached_tokens = count_in(*details, "cached_tokens", 0);
    }
  }

  static bool has_text(const Json& object, const char* name) {
    if (!object.is_object()) return false;
    const auto text = object.find(name);
    return text != object.end() && text->is_string() && !text->get_ref<const std::string&>().empty();
  }

  void fail(const std::string& message) {
    if (outcome_.error.empty()) outcome_.error = message;
  }

  Outcome& outcome_;
  std::string line_;
  std::string refusal_;
  int64_t events_ = 0;
  bool done_ = false;
};

Json body_of(const PlannedRequest& request, const std::string& model, const RequestOptions& options,
             uint64_t number) {
  Json body = {{"model", model}};
  if (options.chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", request.text}}});
  } else if (!request.ids.empty()) {
    body["prompt"] = request.ids;
  } else {
    body["prompt"] = request.text;
  }
  body["max_tokens"] = request.max_tokens;
  body["temperature"] = options.temperature;
  if (options.temperature > 0) body["seed"] = (options.seed + number) & 0x7FFFFFFF;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  return body;
}

/// Ends `context` soon after Ctrl-C.
class Watch {
 public:
  explicit Watch(asio::io_context& context) : context_(context), timer_(context) { wait(); }
  void stop() { timer_.cancel(); }

 private:
  void wait() {
    timer_.expires_after(std::chrono::milliseconds(50));
    timer_.async_wait([this](error_code error) {
      if (error) return;
      if (interrupted()) return context_.stop();
      wait();
    });
  }

  asio::io_context& context_;
  asio::steady_timer timer_;
};

/// One round of traffic.
class Round {
 public:
  Round(const Endpoint& endpoint, std::span<const PlannedRequest> requests, const RequestOptions& options)
      : client_(context_, endpoint.url, options.api_key, std::chrono::duration<double>(options.timeout)),
        watch_(context_),
        next_due_(context_),
        endpoint_(endpoint),
        requests_(requests),
        options_(options),
        start_(Clock::now()) {}

  LoadResult run(int64_t concurrency) {
    open_loop_ = concurrency == 0;
    if (open_loop_) {
      send_due();
    } else {
      while (static_cast<int64_t>(sent_) < concurrency && sent_ < requests_.size()) send();
    }
    if (requests_.empty()) watch_.stop();
    context_.run();
    result_.interrupted = interrupted();
    result_.unfinished = static_cast<int64_t>(sent_ - result_.outcomes.size());
    result_.connections = client_.counts();
    return std::move(result_);
  }

 private:
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  void send_due() {
    while (sent_ < requests_.size() && requests_[sent_].due <= now()) send();
    if (sent_ == requests_.size()) return;
    next_due_.expires_at(start_ + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(requests_[sent_].due)));
    next_due_.async_wait([this](error_code error) {
      if (!error) send_due();
    });
  }

  void send() {
    struct InFlight {
      Outcome outcome;
      StreamReader reader{outcome};
    };
    auto in_flight = std::make_shared<InFlight>();
    const uint64_t number = sent_++;
    const Json body = body_of(requests_[number], endpoint_.model, options_, number);
    HttpCall call;
    call.method = "POST";
    call.target = endpoint_.url.base + (options_.chat ? "/chat/completions" : "/completions");
    call.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    call.on_body = [this, in_flight](unsigned status, std::string_view piece) {
      in_flight->reader.read(status, piece, now());
    };
    call.on_done = [this, in_flight](unsigned status, const std::string& error) {
      in_flight->outcome.finished = now();
      in_flight->reader.finish(status, error);
      result_.outcomes.push_back(std::move(in_flight->outcome));
      if (!open_loop_ && sent_ < requests_.size()) send();
      if (result_.outcomes.size() == requests_.size()) watch_.stop();
    };
    in_flight->outcome.sent = now();
    client_.send(std::move(call));
  }

  asio::io_context context_{1};
  HttpClient client_;
  Watch watch_;
  asio::steady_timer next_due_;
  const Endpoint& endpoint_;
  std::span<const PlannedRequest> requests_;
  const RequestOptions& options_;
  Clock::time_point start_;
  bool open_loop_ = false;
  size_t sent_ = 0;
  LoadResult result_;
};

}  // namespace

int64_t Outcome::output_tokens() const {
  return completion_tokens >= 0 ? completion_tokens : static_cast<int64_t>(pieces.size());
}

void find_model(Endpoint& endpoint, const RequestOptions& options) {
  asio::io_context context(1);
  HttpClient client(context, endpoint.url, options.api_key, std::chrono::duration<double>(options.timeout));
  Watch watch(context);
  std::string body, error;
  unsigned status = 0;
  HttpCall call;
  call.method = "GET";
  call.target = endpoint.url.base + "/models";
  call.on_body = [&](unsigned, std::string_view piece) {
    if (body.size() <= kMaxEventBytes) body.append(piece);
  };
  call.on_done = [&](unsigned got, const std::string& why) {
    status = got;
    error = why;
    watch.stop();
  };
  client.send(std::move(call));
  context.run();
  throw_if_interrupted();
  const std::string where = printable(endpoint.url.text);
  require(error.empty(), "{}: cannot ask for its models: {}", where, error);
  const Json json = parse(body);
  require(status == 200, "{}: cannot ask for its models: status {} {}", where, status,
          printable(message_of(json), 200));
  const bool listed = json.is_object() && json.contains("data") && json["data"].is_array() &&
                      !json["data"].empty() && json["data"][0].is_object() &&
                      json["data"][0].contains("id") && json["data"][0]["id"].is_string();
  require(listed, "{}: {}/models lists no model; --model names one", where, endpoint.url.base);
  endpoint.model = json["data"][0]["id"].get<std::string>();
}

LoadResult run_load(const Endpoint& endpoint, const std::vector<PlannedRequest>& requests,
                    int64_t concurrency, const RequestOptions& options) {
  return Round(endpoint, requests, options).run(concurrency);
}

}  // namespace atom::cli
