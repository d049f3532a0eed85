#include "server/token_text.h"

#include <fmt/format.h>

#include "checkpoint/json.h"

namespace atom::server {

std::string token_string(const text::Tokenizer& tokenizer, int32_t token, std::string_view prefix) {
  const std::string_view bytes = tokenizer.token_bytes(token);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string out(prefix);
  for (const char byte : bytes) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return out;
}

int64_t count_characters(std::string_view text) {
  int64_t characters = 0;
  // Every byte but those that go on with a character.
  for (const char byte : text) characters += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  return characters;
}

void TextOffsets::add(int32_t token) {
  if (skip_special_tokens_ && tokenizer_->is_special(token)) return;
  add_bytes(tokenizer_->token_bytes(token));
}

void TextOffsets::add_bytes(std::string_view bytes) {
  offset_ += count_characters(assembler_.push(bytes));
}

void TextOffsets::start_behind(std::string_view text) {
  assembler_ = {};
  offset_ = count_characters(text);
}

}  // namespace atom::server
