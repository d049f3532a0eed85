#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/reply.h"

namespace atom::server {

/// A prompt of /v1/completions.
struct CompletionPrompt {
  std::vector<int32_t> tokens;
  /// What echo shows of it.
  std::string text;
  /// Whether the text is what the client wrote: tokens that were put around it are not in it.
  bool written = false;
};

struct CompletionReplyOptions {
  bool echo = false;
  std::optional<int> logprobs;
  bool token_ids = false;
};

/// The choices of /v1/completions: text, and log-probabilities in the form of four lists, a place a token:
/// tokens, token_logprobs, top_logprobs (an object of token texts a token, the token itself always in it) and
/// text_offset (characters from the begin of the choice's text).
class CompletionReply : public ReplyFormat {
 public:
  CompletionReply(const text::Tokenizer& tokenizer, std::vector<CompletionPrompt> prompts,
                  CompletionReplyOptions options)
      : tokenizer_(tokenizer), prompts_(std::move(prompts)), results_(prompts_.size()), options_(options) {}

  const char* id_prefix() const override { return "cmpl-"; }
  const char* object() const override { return "text_completion"; }
  const char* chunk_object() const override { return "text_completion"; }
  void on_prompt(size_t prompt, PromptResult result) override;
  std::vector<Json> chunks(Choice& choice, const Delta& delta) override;
  Json whole(Choice& choice, const Delta& all) override;

 private:
  struct Logprobs;

  void echo(Choice& choice, std::string& text, Logprobs& logprobs) const;
  void add(Logprobs& logprobs, int64_t offset, int32_t token, const TokenLogprob* logprob) const;

  const text::Tokenizer& tokenizer_;
  std::vector<CompletionPrompt> prompts_;
  std::vector<PromptResult> results_;
  CompletionReplyOptions options_;
};

}  // namespace atom::server
