#pragma once

#include <vector>

#include "server/reply.h"

namespace atom::server {

struct ChatReplyOptions {
  bool logprobs = false;
  bool token_ids = false;
  /// Tokens that end a text. They are not part of it, nor of its log-probabilities.
  std::vector<int32_t> stop_ids;
};

/// The choices of /v1/chat/completions: a message, or the deltas of one.
class ChatReply : public ReplyFormat {
 public:
  ChatReply(const text::Tokenizer& tokenizer, ChatReplyOptions options)
      : tokenizer_(tokenizer), options_(std::move(options)) {}

  const char* id_prefix() const override { return "chatcmpl-"; }
  const char* object() const override { return "chat.completion"; }
  const char* chunk_object() const override { return "chat.completion.chunk"; }
  void on_prompt(size_t prompt, PromptResult result) override {}
  std::vector<Json> chunks(Choice& choice, const Delta& delta) override;
  Json whole(Choice& choice, const Delta& all) override;

 private:
  Json logprobs_of(const Delta& delta) const;
  Json token_json(int32_t token, float logprob) const;

  const text::Tokenizer& tokenizer_;
  ChatReplyOptions options_;
};

}  // namespace atom::server
