#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace atom::text::jinja {

/// A position in the tokens of a template, with what every part of the parser needs.
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  Token expect(TokenKind kind);

  [[noreturn]] void fail_at(int line, const std::string& message) const;
  [[noreturn]] void unexpected(const std::string& expected) const;

 private:
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  const std::string& name_;
};

/// Counts how deep the parser has gone; throws Error beyond a limit.
class DepthGuard {
 public:
  DepthGuard(TokenStream& stream, int& depth);
  ~DepthGuard() { --depth_; }

 private:
  int& depth_;
};

/// Jinja's expression grammar, by recursive descent.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  ExpressionPtr expression() { return condition(true); }
  /// One expression, or a tuple when a comma follows. `end_name` is a name that ends it.
  ExpressionPtr tuple(bool with_condition = true, const char* end_name = nullptr, bool parenthesized = false);
  Target target(const char* end_name, bool with_namespace);
  /// Filters, applied to `value`; `start` reads the first one without its bar.
  ExpressionPtr filters(ExpressionPtr value, bool start);
  void macro_parameters(Macro& macro);

  int& depth() { return depth_; }

  /// Names read since it was last cleared that concern the macro around them.
  Mentions& mentions() { return mentions_; }
  /// What stands under a condition may name filters and tests that do not exist: that is an error only when
  /// they are reached.
  bool& conditional() { return conditional_; }
  /// Throws Error when a filter or test outside of conditions does not exist.
  void check_names() const;

 private:
  ExpressionPtr make(ExpressionKind kind, int line, std::vector<ExpressionPtr> children = {});
  /// Sets the depth of a node whose children are complete.
  ExpressionPtr done(ExpressionPtr node);
  ExpressionPtr condition(bool with_condition);
  ExpressionPtr disjunction();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filter);
  ExpressionPtr primary();
  ExpressionPtr integer();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr filters_and_tests(ExpressionPtr node);
  ExpressionPtr subscript(ExpressionPtr node);
  ExpressionPtr test(ExpressionPtr node);
  void arguments(Expression& call);
  ExpressionPtr binary(ExpressionPtr left, ExpressionPtr right, const Token& op);
  bool at_tuple_end(const char* end_name) const;
  std::string dotted_name();
  void missing(int line, const char* kind, const std::string& name);

  TokenStream& stream_;
  int depth_ = 0;
  Mentions mentions_;
  bool conditional_ = false;
  std::vector<std::pair<int, std::string>> missing_;  // line and message
};

}  // namespace atom::text::jinja
