#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/byte_level.h"
#include "base/error.h"
#include "server/api.h"
#include "server/request_fields.h"
#include "server/submitter.h"
#include "text/detokenizer.h"

namespace atom::server::test_support {

/// A tokenizer of bytes: token 104 is "h". Beside them 256 "he", and the special tokens 257 "<s>" (put in
/// front of a text), 258 "</s>" (ends one) and 259 "<|sys|>".
inline text::Tokenizer byte_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_level_encode(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["he"] = 256;
  nlohmann::json added = nlohmann::json::array();
  for (const char* name : {"<s>", "</s>", "<|sys|>"}) {
    added.push_back(
        {{"id", 257 + added.size()}, {"content", name}, {"special", true}, {"normalized", false}});
  }
  const nlohmann::json begin = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const nlohmann::json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  return text::Tokenizer::from_json(
      {{"added_tokens", added},
       {"normalizer", nullptr},
       {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
       {"decoder", {{"type", "ByteLevel"}}},
       {"post_processor",
        {{"type", "TemplateProcessing"},
         {"single", nlohmann::json::array({begin, sequence})},
         {"pair", nlohmann::json::array({begin, sequence, sequence})},
         {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {257}}, {"tokens", {"<s>"}}}}}}}},
       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e"}}}}},
      "byte tokenizer");
}

/// An engine that says what it is told to. Nothing happens in submit() unless `at_once`.
class ScriptedEngine : public Submitter {
 public:
  struct Submitted {
    uint64_t id = 0;
    Request request;
    std::shared_ptr<RequestListener> listener;
  };

  explicit ScriptedEngine(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::vector<uint64_t> submit(std::vector<Submission> requests) override {
    if (refuse) {
      for (size_t i = 0; i < requests.size(); ++i) refuse(submitted.size() + i);
    }
    const size_t first = submitted.size();
    std::vector<uint64_t> ids;
    for (Submission& one : requests) {
      submitted.push_back({submitted.size() + 1, std::move(one.request), std::move(one.listener)});
      ids.push_back(submitted.back().id);
    }
    for (size_t i = first; at_once && i < submitted.size(); ++i) play(submitted[i]);
    return ids;
  }
  void cancel(uint64_t id) override { cancelled.push_back(id); }
  EngineStats stats() const override { return counts; }
  int64_t context() const override { return context_tokens; }

  /// Plays all that has been submitted: a token of each choice of each request in turn.
  void run() {
    for (const Submitted& one : submitted) play(one);
  }

  void play(const Submitted& one) {
    one.listener->on_prompt(prompt_result(one.request));
    std::vector<Text> texts;
    for (int choice = 0; choice < one.request.n; ++choice) texts.emplace_back(tokenizer_, one.request);
    for (int64_t step = 0;; ++step) {
      bool all_finished = true;
      for (int choice = 0; choice < one.request.n; ++choice) {
        Text& text = texts[static_cast<size_t>(choice)];
        if (text.finished) continue;
        const Delta delta = next(one.request, text, choice, step);
        text.finished = delta.finish_reason.has_value();
        all_finished = all_finished && text.finished;
        one.listener->on_delta(delta);
      }
      if (all_finished) return;
    }
  }

  static TokenLogprob logprob_of(int32_t token, int top) {
    TokenLogprob out{token, -0.25f * static_cast<float>(1 + token % 4), {}};
    for (int i = 0; i < top; ++i) {
      out.top.emplace_back((token + i + 1) % 256, -0.1f * static_cast<float>(i + 1));
    }
    return out;
  }

  /// What every choice says, unless its max_tokens or stop tokens end it before; choice i begins at token i.
  std::vector<int32_t> answer = {'h', 'i', '!', 258};
  std::function<void(size_t index)> refuse;  // may throw
  bool at_once = false;
  int64_t cached_tokens = 0;
  int64_t context_tokens = 64;
  EngineStats counts;

  std::vector<Submitted> submitted;
  std::vector<uint64_t> cancelled;

 private:
  struct Text {
    Text(const text::Tokenizer& tokenizer, const Request& request)
        : detokenizer(tokenizer, request.skip_special_tokens), stops(request.stop) {}
    text::Detokenizer detokenizer;
    text::StopMatcher stops;
    bool finished = false;
  };

  PromptResult prompt_result(const Request& request) const {
    PromptResult result{static_cast<int64_t>(request.prompt.size()), cached_tokens, {}};
    for (size_t i = 1; request.prompt_logprobs && i < request.prompt.size(); ++i) {
      result.logprobs.push_back(logprob_of(request.prompt[i], *request.prompt_logprobs));
    }
    return result;
  }

  Delta next(const Request& request, Text& text, int choice, int64_t step) const {
    Delta delta;
    delta.choice = choice;
    if (request.max_tokens == 0) {
      delta.finish_reason = FinishReason::length;
      return delta;
    }
    const auto at = static_cast<size_t>(choice) + static_cast<size_t>(step);
    const int32_t token = at < answer.size() ? answer[at] : 258;
    delta.tokens = {token};
    if (request.logprobs) delta.logprobs = {logprob_of(token, *request.logprobs)};
    const bool ends = std::count(request.stop_ids.begin(), request.stop_ids.end(), token) > 0;
    if (!ends) delta.text = text.stops.push(text.detokenizer.push(token));
    if (ends || text.stops.matched()) {
      delta.finish_reason = FinishReason::stop;
    } else if (step + 1 == request.max_tokens || step == 100) {
      delta.finish_reason = FinishReason::length;
    }
    if (delta.finish_reason && !text.stops.matched()) {
      delta.text += text.stops.push(text.detokenizer.finish()) + text.stops.finish();
    }
    return delta;
  }

  const text::Tokenizer& tokenizer_;
};

/// Keeps what is sent.
class RecordedExchange : public Exchange {
 public:
  void send(HttpResponse sent) override {
    ++answers;
    response = std::move(sent);
    ended = true;
  }
  void begin_stream(HttpResponse sent) override {
    ++answers;
    streams = true;
    response = std::move(sent);
  }
  bool write(std::string piece) override {
    if (gone) return false;
    response.body += piece;
    return true;
  }
  void end() override { ended = true; }
  void on_closed(std::function<void()> closed) override { close = std::move(closed); }

  Json json() const { return Json::parse(response.body); }

  /// The events of a stream, without the [DONE].
  std::vector<Json> events() const {
    std::vector<Json> out;
    for (const std::string& data : lines()) {
      if (data != "[DONE]") out.push_back(Json::parse(data));
    }
    return out;
  }
  bool done() const { return !lines().empty() && lines().back() == "[DONE]"; }

  HttpResponse response;
  int answers = 0;
  bool streams = false;
  bool ended = false;
  bool gone = false;
  std::function<void()> close;

 private:
  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    std::string_view rest = response.body;
    while (rest.starts_with("data: ")) {
      const size_t end = rest.find("\n\n");
      out.emplace_back(rest.substr(6, end - 6));
      rest.remove_prefix(end + 2);
    }
    if (!rest.empty()) out.emplace_back("not an event: " + std::string(rest));
    return out;
  }
};

/// An API over a scripted engine.
struct ApiUnderTest {
  explicit ApiUnderTest(bool with_template = true) : tokenizer(byte_tokenizer()) {
    auto scripted = std::make_unique<ScriptedEngine>(tokenizer);
    engine = scripted.get();
    ApiOptions options;
    options.model_name = "tiny";
    options.created = 1700000000;
    options.end_of_text_ids = {258};
    options.max_choices = 16;
    if (with_template) {
      options.chat_template.emplace(
          "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
          "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
          "test template");
    }
    api = std::make_unique<Api>(std::move(scripted), tokenizer, std::move(options));
  }

  std::shared_ptr<RecordedExchange> begin(std::string method, std::string path, std::string body = "",
                                          std::string content_type = "application/json") {
    auto exchange = std::make_shared<RecordedExchange>();
    HttpRequest request;
    request.method = std::move(method);
    request.path = std::move(path);
    request.headers = {{"content-type", std::move(content_type)}};
    request.body = std::move(body);
    api->handle(std::move(request), exchange);
    return exchange;
  }
  std::shared_ptr<RecordedExchange> post(const std::string& path, const Json& body) {
    return begin("POST", path, body.dump());
  }
  /// Posts and lets the engine answer.
  std::shared_ptr<RecordedExchange> answer(const std::string& path, const Json& body) {
    auto exchange = post(path, body);
    engine->run();
    return exchange;
  }

  text::Tokenizer tokenizer;
  ScriptedEngine* engine = nullptr;
  std::unique_ptr<Api> api;
};

}  // namespace atom::server::test_support
