#include "conversation.h"

#include "base/error.h"

namespace atom::cli {

bool has_chat_template(const Checkpoint& checkpoint) {
  const Json& config = checkpoint.tokenizer_config();
  const auto entry = config.find("chat_template");
  return entry != config.end() && !entry->is_null();
}

text::ChatTemplate load_chat_template(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.path().string() + ": tokenizer_config: chat_template";
  const Json& config = checkpoint.tokenizer_config();
  const auto entry = config.find("chat_template");
  require(entry != config.end() && !entry->is_null(), "{}: missing: this model was not made for chats",
          where);
  if (entry->is_string()) return {entry->get<std::string>(), where};
  // Several templates, each with a name; "default" is the one for chats.
  require(entry->is_array(), "{}: expected a string or a list, found {}", where, entry->type_name());
  for (const Json& item : *entry) {
    if (item.is_object() && item.value("name", Json()) == "default" &&
        item.value("template", Json()).is_string()) {
      return {item["template"].get<std::string>(), where};
    }
  }
  fail("{}: expected a template with the name \"default\" in the list", where);
}

Json template_variables(const Checkpoint& checkpoint) {
  Json variables = Json::object();
  for (const auto& [name, value] : checkpoint.tokenizer_config().items()) {
    if (name.size() < 6 || name.substr(name.size() - 6) != "_token") continue;
    if (value.is_string()) variables[name] = value;
    if (value.is_object() && value.contains("content")) variables[name] = value["content"];
  }
  return variables;
}

Conversation::Conversation(const Checkpoint& checkpoint)
    : template_(load_chat_template(checkpoint)), variables_(template_variables(checkpoint)) {}

void Conversation::add(const std::string& role, const std::string& content) {
  messages_.push_back({{"role", role}, {"content", content}});
}

bool Conversation::forget_oldest_turn() {
  size_t first = 0;
  while (first < messages_.size() && messages_[first]["role"] == "system") ++first;
  size_t next = first + 1;
  while (next < messages_.size() && messages_[next]["role"] != "user") ++next;
  if (next >= messages_.size()) return false;
  messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(first),
                  messages_.begin() + static_cast<std::ptrdiff_t>(next));
  return true;
}

std::vector<int32_t> Conversation::encode(const text::Tokenizer& tokenizer) const {
  // The template writes the special tokens itself.
  return tokenizer.encode(template_.render(messages_, true, variables_), {.add_special_tokens = false});
}

}  // namespace atom::cli
