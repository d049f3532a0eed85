#include "text/jinja/parser.h"

#include <utility>

#include "base/error.h"
#include "text/jinja/expression_parser.h"
#include "text/jinja/lexer.h"

namespace atom::text::jinja {
namespace {

class Parser {
 public:
  Parser(std::string_view source, const std::string& name)
      : stream_(tokenize_template(source, name), name), expressions_(stream_) {}

  Body run() { return statements({}); }

 private:
  using Names = std::initializer_list<const char*>;

  std::unique_ptr<Statement> make(StatementKind kind, int line) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  bool at_one_of(Names names) const {
    for (const char* name : names) {
      if (stream_.current().is_name(name)) return true;
    }
    return false;
  }

  /// Statements up to a block that begins with one of `ends` (which is left to be read), or to the end.
  Body statements(Names ends) {
    const DepthGuard guard(stream_, expressions_.depth());
    Body body;
    while (true) {
      const Token token = stream_.current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() > 0) stream_.unexpected("'" + std::string(*(ends.end() - 1)) + "'");
        return body;
      }
      stream_.next();
      if (token.kind == TokenKind::kData) {
        body.push_back(make(StatementKind::kData, token.line));
        body.back()->text = token.text;
      } else if (token.kind == TokenKind::kVariableBegin) {
        body.push_back(make(StatementKind::kOutput, token.line));
        body.back()->value = expressions_.tuple();
        stream_.expect(TokenKind::kVariableEnd);
      } else {
        if (at_one_of(ends)) return body;
        body.push_back(statement());
        stream_.expect(TokenKind::kBlockEnd);
      }
      expressions_.check_names();
    }
  }

  /// The body of a block: what follows its head. `conditional` says whether it runs under a condition.
  Body body_until(Names ends, bool conditional = false) {
    stream_.skip_operator(":");
    stream_.expect(TokenKind::kBlockEnd);
    const bool outer = std::exchange(expressions_.conditional(), conditional);
    Body body = statements(ends);
    expressions_.conditional() = outer;
    return body;
  }

  std::unique_ptr<Statement> statement() {
    const Token token = stream_.expect(TokenKind::kName);
    const std::string& name = token.text;
    if (name == "for") return for_loop(token.line);
    if (name == "if") return if_chain(token.line);
    if (name == "set") return set(token.line);
    if (name == "macro") return macro(token.line);
    if (name == "call") return call_block(token.line);
    if (name == "filter") return filter_block(token.line);
    if (name == "with") return with(token.line);
    if (name == "generation") return group(token.line);
    if (name == "print") return print(token.line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) stream_.fail_at(token.line, "'" + name + "' outside of a loop");
      return make(name == "break" ? StatementKind::kBreak : StatementKind::kContinue, token.line);
    }
    stream_.fail_at(token.line, "the tag '" + printable(name) + "' is unknown or not supported");
  }

  std::unique_ptr<Statement> print(int line) {
    auto group = make(StatementKind::kGroup, line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!group->body.empty()) stream_.expect_operator(",");
      group->body.push_back(make(StatementKind::kOutput, line));
      group->body.back()->value = expressions_.expression();
    }
    return group;
  }

  std::unique_ptr<Statement> for_loop(int line) {
    auto statement = make(StatementKind::kFor, line);
    statement->target = expressions_.target("in", false);
    if (!stream_.skip_name("in")) stream_.unexpected("'in'");
    statement->value = expressions_.tuple(false, "recursive");
    if (stream_.skip_name("if")) statement->condition = expressions_.expression();
    statement->recursive = stream_.skip_name("recursive");
    ++loops_;
    statement->body = body_until({"else", "endfor"});
    --loops_;
    if (stream_.next().text == "else") {
      statement->otherwise = body_until({"endfor"});
      stream_.next();
    }
    return statement;
  }

  std::unique_ptr<Statement> if_chain(int line) {
    auto statement = make(StatementKind::kIf, line);
    while (true) {
      const bool outer = std::exchange(expressions_.conditional(), true);
      ExpressionPtr condition = expressions_.tuple(false);
      expressions_.conditional() = outer;
      Body body = body_until({"elif", "else", "endif"}, true);
      statement->branches.emplace_back(std::move(condition), std::move(body));
      const std::string end = stream_.next().text;
      if (end == "elif") continue;
      if (end == "else") {
        statement->branches.emplace_back(nullptr, body_until({"endif"}, true));
        stream_.next();
      }
      return statement;
    }
  }

  std::unique_ptr<Statement> set(int line) {
    auto statement = make(StatementKind::kSet, line);
    statement->target = expressions_.target(nullptr, true);
    if (stream_.skip_operator("=")) {
      statement->value = expressions_.tuple();
      return statement;
    }
    statement->kind = StatementKind::kSetBlock;
    statement->value = expressions_.filters(nullptr, false);
    statement->body = inner_body("endset");
    return statement;
  }

  /// A body that loop controls cannot leave.
  Body inner_body(const char* end) {
    const int loops = loops_;
    loops_ = 0;
    Body body = body_until({end});
    loops_ = loops;
    stream_.next();
    return body;
  }

  std::unique_ptr<Statement> macro(int line) {
    auto statement = make(StatementKind::kMacro, line);
    statement->macro = std::make_unique<Macro>();
    statement->macro->name = stream_.expect(TokenKind::kName).text;
    statement->macro->line = line;
    expressions_.macro_parameters(*statement->macro);
    macro_body(*statement->macro, "endmacro");
    return statement;
  }

  std::unique_ptr<Statement> call_block(int line) {
    auto statement = make(StatementKind::kCallBlock, line);
    statement->macro = std::make_unique<Macro>();
    statement->macro->name = "caller";
    statement->macro->line = line;
    if (stream_.current().is_operator("(")) expressions_.macro_parameters(*statement->macro);
    statement->value = expressions_.expression();
    if (statement->value->kind != ExpressionKind::kCall)
      stream_.fail_at(line, "expected a call behind 'call'");
    macro_body(*statement->macro, "endcall");
    return statement;
  }

  void macro_body(Macro& macro, const char* end) {
    const Mentions outer = std::exchange(expressions_.mentions(), Mentions());
    macro.body = inner_body(end);
    Mentions& mentions = expressions_.mentions();
    macro.mentions = mentions;
    mentions = {outer.varargs || mentions.varargs, outer.kwargs || mentions.kwargs,
                outer.caller || mentions.caller};
  }

  std::unique_ptr<Statement> filter_block(int line) {
    auto statement = make(StatementKind::kFilterBlock, line);
    statement->value = expressions_.filters(nullptr, true);
    statement->body = inner_body("endfilter");
    return statement;
  }

  std::unique_ptr<Statement> with(int line) {
    auto statement = make(StatementKind::kWith, line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!statement->bindings.empty()) stream_.expect_operator(",");
      Target target = expressions_.target(nullptr, false);
      stream_.expect_operator("=");
      statement->bindings.emplace_back(std::move(target), expressions_.expression());
    }
    statement->body = body_until({"endwith"});
    stream_.next();
    return statement;
  }

  std::unique_ptr<Statement> group(int line) {
    auto statement = make(StatementKind::kGroup, line);
    statement->body = inner_body("endgeneration");
    return statement;
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int loops_ = 0;  // how many loops a break here could leave
};

}  // namespace

Body parse_template(std::string_view source, const std::string& name) {
  return Parser(source, name).run();
}

}  // namespace atom::text::jinja
