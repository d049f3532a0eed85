#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom::text::jinja {

enum class TokenKind {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  ///< strings unescaped, numbers without underscores
  int line = 0;

  bool is(TokenKind other, std::string_view value) const { return kind == other && text == value; }
  bool is_operator(std::string_view value) const { return is(TokenKind::kOperator, value); }
  bool is_name(std::string_view value) const { return is(TokenKind::kName, value); }
};

/// Cuts a template into tokens, with trim_blocks and lstrip_blocks on and the trailing newline removed, as
/// Hugging Face sets Jinja up. Throws Error naming `name` and the line. The last token is kEnd.
std::vector<Token> tokenize_template(std::string_view source, const std::string& name);

}  // namespace atom::text::jinja
