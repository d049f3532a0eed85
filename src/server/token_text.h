#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace atom::server {

/// The text of a token on its own. Where its bytes are not whole characters they are written as "\xE2\x80",
/// behind `prefix` ("bytes:" in /v1/completions).
std::string token_string(const text::Tokenizer& tokenizer, int32_t token, std::string_view prefix = "");

/// Characters (code points) of well-formed UTF-8.
int64_t count_characters(std::string_view text);

/// Where each token of a text begins in it, in characters, as tokens come one after another. A token whose
/// first bytes end a character that an earlier one began counts from behind what is complete by then.
class TextOffsets {
 public:
  /// Special tokens take no room where they are left out of the text.
  TextOffsets(const text::Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

  /// Where a token that comes next begins.
  int64_t next() const { return offset_; }
  void add(int32_t token);
  void add_bytes(std::string_view bytes);
  /// A text that is given: tokens behind it begin where it ends.
  void start_behind(std::string_view text);

 private:
  const text::Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  text::Utf8Assembler assembler_;
  int64_t offset_ = 0;
};

}  // namespace atom::server
