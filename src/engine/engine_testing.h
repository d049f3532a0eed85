#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/request.h"

namespace atom {

/// Keeps what it hears. Usable from any thread.
class Recorder : public RequestListener {
 public:
  struct Choice {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<TokenLogprob> logprobs;
    std::optional<FinishReason> finish_reason;
  };

  explicit Recorder(int n = 1) : n_(n) {}

  void on_prompt(PromptResult result) override {
    const std::lock_guard lock(mutex_);
    if (is_over() || !choices_.empty()) ++late_;
    ++prompts_;
    prompt_ = std::move(result);
  }
  void on_delta(Delta delta) override {
    {
      const std::lock_guard lock(mutex_);
      Choice& choice = choices_[delta.choice];
      if (choice.finish_reason || is_over() || (prompts_ == 0 && !delta.tokens.empty())) ++late_;
      choice.text += delta.text;
      choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
      choice.logprobs.insert(choice.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
      choice.finish_reason = delta.finish_reason;
      if (delta.finish_reason) ++finished_;
    }
    changed_.notify_all();
  }
  void on_error(std::string message) override {
    {
      const std::lock_guard lock(mutex_);
      if (is_over()) ++late_;
      error_ = std::move(message);
    }
    changed_.notify_all();
  }

  bool done() const {
    const std::lock_guard lock(mutex_);
    return is_over();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return is_over(); });
  }
  /// Until a token is there, or all is over.
  void wait_for_token() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !choices_.empty() || !error_.empty(); });
  }

  // To be read when done.
  const Choice& choice(int index = 0) const { return choices_.at(index); }
  bool has(int index) const { return choices_.contains(index); }
  const PromptResult& prompt() const { return prompt_; }
  int prompts() const { return prompts_; }
  const std::string& error() const { return error_; }
  /// Calls out of turn: behind the last one, tokens before the prompt.
  int late() const { return late_; }

 private:
  bool is_over() const { return finished_ == n_ || !error_.empty(); }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  const int n_;
  int finished_ = 0;
  int prompts_ = 0;
  int late_ = 0;
  PromptResult prompt_;
  std::map<int, Choice> choices_;
  std::string error_;
};

}  // namespace atom
