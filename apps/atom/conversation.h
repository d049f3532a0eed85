#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common.h"
#include "text/chat_template.h"

namespace atom::cli {

bool has_chat_template(const Checkpoint& checkpoint);

/// The chat template of a checkpoint. Throws Error when it has none, or one that does not parse.
text::ChatTemplate load_chat_template(const Checkpoint& checkpoint);

/// Variables that a template may ask for besides the messages: bos_token, eos_token, ... as strings.
Json template_variables(const Checkpoint& checkpoint);

/// Messages of a chat, and what the model's template makes of them.
class Conversation {
 public:
  /// Throws Error as load_chat_template does.
  explicit Conversation(const Checkpoint& checkpoint);

  void add(const std::string& role, const std::string& content);

  /// Goes back to earlier `messages`.
  void restore(Json messages) { messages_ = std::move(messages); }

  /// Drops the oldest message that is not the system's and what follows it up to the next message of the
  /// user; false when that would leave nothing to answer.
  bool forget_oldest_turn();

  /// The tokens of the conversation, up to where the assistant's next answer begins. Throws Error when the
  /// template fails.
  std::vector<int32_t> encode(const text::Tokenizer& tokenizer) const;

  /// An array of {"role", "content"}.
  const Json& messages() const { return messages_; }

 private:
  text::ChatTemplate template_;
  Json variables_;
  Json messages_ = Json::array();
};

}  // namespace atom::cli
