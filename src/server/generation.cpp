#include "server/generation.h"

#include <mutex>
#include <utility>

#include "server/response_stream.h"

namespace atom::server {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

/// The engine's requests behind one response, to be cancelled together from any thread.
class Cancellation {
 public:
  explicit Cancellation(Submitter& submitter) : submitter_(submitter) {}

  void add(uint64_t id) {
    {
      const std::lock_guard lock(mutex_);
      if (!cancelled_) {
        ids_.push_back(id);
        return;
      }
    }
    submitter_.cancel(id);
  }

  void cancel() {
    std::vector<uint64_t> ids;
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
      ids.swap(ids_);
    }
    for (const uint64_t id : ids) submitter_.cancel(id);
  }

  bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

 private:
  Submitter& submitter_;
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::vector<uint64_t> ids_;
};

/// One response in the making.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(Submitter& submitter, Metrics& metrics, GenerationOptions options,
             std::unique_ptr<ReplyFormat> format, std::shared_ptr<Exchange> exchange)
      : submitter_(submitter),
        metrics_(metrics),
        options_(std::move(options)),
        format_(std::move(format)),
        exchange_(std::move(exchange)),
        stream_(exchange_),
        cancellation_(std::make_shared<Cancellation>(submitter)) {
    const Json head = {
        {"id", format_->id_prefix() + options_.id},
        {"object", options_.stream ? format_->chunk_object() : format_->object()},
        {"created",
         std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
             .count()},
        {"model", options_.model},
    };
    // Every event repeats these members: written once, its closing brace taken off.
    head_ = dump(head);
    head_.pop_back();
    head_ += ",\"choices\":[";
  }

  void start(std::vector<Request> requests, const TextOffsets& offsets);

 private:
  /// What is known of one choice.
  struct Text {
    Choice choice;
    Delta all;  // the sum of its deltas, where the response is whole
    int64_t tokens = 0;
    Clock::time_point first_token;
    bool finished = false;
  };
  /// What is known of one of the engine's requests.
  struct Prompt {
    bool has_token = false;
    int64_t tokens = 0;
    int64_t generated = 0;
    int unfinished = 0;
  };

  class Listener : public RequestListener {
   public:
    Listener(std::shared_ptr<Generation> generation, size_t prompt)
        : generation_(std::move(generation)), prompt_(prompt) {}
    void on_prompt(PromptResult result) override {
      guarded([&] { generation_->on_prompt(prompt_, std::move(result)); });
    }
    void on_delta(Delta delta) override {
      guarded([&] { generation_->on_delta(prompt_, std::move(delta)); });
    }
    void on_error(std::string message) override { generation_->on_error(500, std::move(message)); }

   private:
    /// The engine's thread goes on whatever happens to one response.
    void guarded(auto work) {
      try {
        work();
      } catch (const std::exception& error) {
        generation_->on_error(500, error.what());
      }
    }

    std::shared_ptr<Generation> generation_;
    size_t prompt_;
  };

  void on_prompt(size_t prompt, PromptResult result);
  void on_delta(size_t prompt, Delta delta);
  void on_error(unsigned status, std::string message);

  void count(Prompt& prompt, Text& text, const Delta& delta);
  void add_to_stream(Text& text, const Delta& delta);
  bool push_out();
  void send_whole();
  void send_error();

  Submitter& submitter_;
  Metrics& metrics_;
  const GenerationOptions options_;
  const std::unique_ptr<ReplyFormat> format_;
  const std::shared_ptr<Exchange> exchange_;

  std::mutex mutex_;  // over all below but cancellation_, which is called without it
  ResponseStream stream_;
  std::string head_;
  std::vector<Prompt> prompts_;
  std::vector<Text> texts_;
  int n_ = 1;
  size_t unfinished_ = 0;
  Usage usage_;
  bool submitted_ = false;  // all requests are with the engine: the response may begin
  bool over_ = false;       // the response is complete, or nobody wants it any more
  std::optional<std::pair<unsigned, std::string>> error_;
  const std::shared_ptr<Cancellation> cancellation_;
};

void Generation::start(std::vector<Request> requests, const TextOffsets& offsets) {
  n_ = requests.front().n;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto prompt_tokens = static_cast<int64_t>(requests[i].prompt.size());
    prompts_.push_back({.tokens = prompt_tokens, .unfinished = n_});
    usage_.prompt_tokens += prompt_tokens;
    for (int j = 0; j < n_; ++j) {
      texts_.push_back({.choice = {.prompt = i, .index = texts_.size(), .offsets = offsets}});
    }
  }
  unfinished_ = texts_.size();

  exchange_->on_closed([weak = std::weak_ptr<Cancellation>(cancellation_)] {
    if (const auto cancellation = weak.lock()) cancellation->cancel();
  });
  std::vector<Submission> submissions;
  for (size_t i = 0; i < requests.size(); ++i) {
    submissions.push_back({std::move(requests[i]), std::make_shared<Listener>(shared_from_this(), i)});
  }
  try {
    for (const uint64_t id : submitter_.submit(std::move(submissions))) cancellation_->add(id);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    over_ = true;
    throw;
  }
  bool there = true;
  {
    const std::lock_guard lock(mutex_);
    submitted_ = true;
    there = push_out();
  }
  if (!there) cancellation_->cancel();
}

void Generation::on_prompt(size_t prompt, PromptResult result) {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  usage_.cached_tokens += result.cached_tokens;
  format_->on_prompt(prompt, std::move(result));
}

void Generation::on_delta(size_t prompt, Delta delta) {
  bool there = true;
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    if (delta.finish_reason == FinishReason::cancelled) {
      // Of a client that has gone; else the engine has given up on it.
      if (!cancellation_->cancelled()) error_ = {503, "the request was cancelled"};
      over_ = !error_;
    } else {
      Text& text = texts_[prompt * static_cast<size_t>(n_) + static_cast<size_t>(delta.choice)];
      count(prompts_[prompt], text, delta);
      if (options_.stream) {
        add_to_stream(text, delta);
      } else {
        text.all.choice = delta.choice;
        text.all.text += delta.text;
        text.all.tokens.insert(text.all.tokens.end(), delta.tokens.begin(), delta.tokens.end());
        std::move(delta.logprobs.begin(), delta.logprobs.end(), std::back_inserter(text.all.logprobs));
        text.all.finish_reason = delta.finish_reason;
      }
    }
    there = push_out() && !error_;
  }
  if (!there) cancellation_->cancel();
}

void Generation::on_error(unsigned status, std::string message) {
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    error_ = {status, std::move(message)};
    push_out();
  }
  // The other prompts' requests: nobody hears of them any more.
  cancellation_->cancel();
}

void Generation::count(Prompt& prompt, Text& text, const Delta& delta) {
  const auto tokens = static_cast<int64_t>(delta.tokens.size());
  usage_.completion_tokens += tokens;
  prompt.generated += tokens;
  if (tokens > 0 && text.tokens == 0) text.first_token = Clock::now();
  text.tokens += tokens;
  if (tokens > 0 && !prompt.has_token) {
    prompt.has_token = true;
    metrics_.first_token(seconds_since(options_.arrival));
  }
  if (!delta.finish_reason || text.finished) return;
  text.finished = true;
  --unfinished_;
  if (text.tokens > 1) {
    metrics_.token_time(seconds_since(text.first_token) / static_cast<double>(text.tokens - 1));
  }
  if (--prompt.unfinished == 0) {
    metrics_.finished(seconds_since(options_.arrival), prompt.tokens, prompt.generated);
  }
}

void Generation::add_to_stream(Text& text, const Delta& delta) {
  for (const Json& chunk : format_->chunks(text.choice, delta)) {
    stream_.add(head_ + dump(chunk) + (options_.include_usage ? "],\"usage\":null}" : "]}"));
  }
  if (unfinished_ == 0 && options_.include_usage) {
    stream_.add(head_ + "],\"usage\":" + dump(usage_json(usage_)) + "}");
  }
}

/// Sends what may be sent by now. False: the client has gone.
bool Generation::push_out() {
  if (over_ || !submitted_) return true;
  if (error_) {
    send_error();
    over_ = true;
  } else if (!options_.stream) {
    if (unfinished_ > 0) return true;
    send_whole();
    over_ = true;
  } else if (unfinished_ == 0) {
    stream_.finish();
    over_ = true;
  } else if (!stream_.flush()) {
    over_ = true;
    return false;
  }
  return true;
}

void Generation::send_whole() {
  std::string body = head_;
  for (Text& text : texts_) {
    if (text.choice.index > 0) body += ',';
    body += dump(format_->whole(text.choice, text.all));
  }
  body += "],\"usage\":" + dump(usage_json(usage_)) + "}";
  exchange_->send({.body = std::move(body)});
}

void Generation::send_error() {
  HttpResponse response = error_response(error_->first, error_->second);
  if (stream_.begun()) {
    stream_.fail(response.body);
  } else {
    exchange_->send(std::move(response));
  }
}

}  // namespace

void start_generation(Submitter& submitter, Metrics& metrics, std::vector<Request> requests,
                      const TextOffsets& offsets, GenerationOptions options,
                      std::unique_ptr<ReplyFormat> format, std::shared_ptr<Exchange> exchange) {
  const auto generation = std::make_shared<Generation>(submitter, metrics, std::move(options),
                                                       std::move(format), std::move(exchange));
  generation->start(std::move(requests), offsets);
}

}  // namespace atom::server
