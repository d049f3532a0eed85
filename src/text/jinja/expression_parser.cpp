#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace atom::text::jinja {
namespace {

constexpr int kMaxParserDepth = 150;
constexpr int kMaxTreeDepth = 500;
constexpr size_t kMaxNames = 1000;  // of parameters, or arguments by name

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kString:
      return "the string \"" + printable(token.text, 40) + "\"";
    default:
      return "'" + printable(token.text, 40) + "'";
  }
}

}  // namespace

Token TokenStream::next() {
  Token token = tokens_[pos_];
  if (pos_ + 1 < tokens_.size()) ++pos_;
  return token;
}

bool TokenStream::skip_operator(std::string_view text) {
  if (!current().is_operator(text)) return false;
  next();
  return true;
}

bool TokenStream::skip_name(std::string_view text) {
  if (!current().is_name(text)) return false;
  next();
  return true;
}

void TokenStream::expect_operator(std::string_view text) {
  if (!skip_operator(text)) unexpected("'" + std::string(text) + "'");
}

Token TokenStream::expect(TokenKind kind) {
  if (current().kind != kind) {
    unexpected(kind == TokenKind::kName ? "a name" : kind == TokenKind::kBlockEnd ? "'%}'" : "'}}'");
  }
  return next();
}

void TokenStream::fail_at(int line, const std::string& message) const {
  fail("{}: line {}: {}", name_, line, message);
}

void TokenStream::unexpected(const std::string& expected) const {
  fail_at(current().line, "expected " + expected + ", found " + describe(current()));
}

DepthGuard::DepthGuard(TokenStream& stream, int& depth) : depth_(depth) {
  if (depth >= kMaxParserDepth) {
    stream.fail_at(stream.current().line,
                   fmt::format("constructs nested deeper than {} levels", kMaxParserDepth));
  }
  ++depth_;
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line, std::vector<ExpressionPtr> children) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  node->children = std::move(children);
  return done(std::move(node));
}

ExpressionPtr ExpressionParser::done(ExpressionPtr node) {
  for (const ExpressionPtr& child : node->children) {
    if (child) node->depth = std::max(node->depth, child->depth + 1);
  }
  for (const auto& [name, child] : node->named) node->depth = std::max(node->depth, child->depth + 1);
  if (node->spread) node->depth = std::max(node->depth, node->spread->depth + 1);
  if (node->spread_named) node->depth = std::max(node->depth, node->spread_named->depth + 1);
  if (node->depth > kMaxTreeDepth) {
    stream_.fail_at(node->line, fmt::format("an expression of more than {} levels", kMaxTreeDepth));
  }
  return node;
}

namespace {
std::vector<ExpressionPtr> list_of(ExpressionPtr a, ExpressionPtr b) {
  std::vector<ExpressionPtr> list;
  list.push_back(std::move(a));
  list.push_back(std::move(b));
  return list;
}
std::vector<ExpressionPtr> list_of(ExpressionPtr a) {
  std::vector<ExpressionPtr> list;
  list.push_back(std::move(a));
  return list;
}
}  // namespace

ExpressionPtr ExpressionParser::condition(bool with_condition) {
  const DepthGuard guard(stream_, depth_);
  const int line = stream_.current().line;
  const size_t missing = missing_.size();
  ExpressionPtr value = disjunction();
  while (with_condition && stream_.skip_name("if")) {
    ExpressionPtr test = disjunction();
    ExpressionPtr otherwise = stream_.skip_name("else") ? condition(true) : nullptr;
    missing_.resize(missing);
    std::vector<ExpressionPtr> children = list_of(std::move(test), std::move(value));
    children.push_back(std::move(otherwise));
    value = make(ExpressionKind::kCondition, line, std::move(children));
  }
  return value;
}

ExpressionPtr ExpressionParser::disjunction() {
  const int line = stream_.current().line;
  ExpressionPtr left = conjunction();
  while (stream_.skip_name("or"))
    left = make(ExpressionKind::kOr, line, list_of(std::move(left), conjunction()));
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  const int line = stream_.current().line;
  ExpressionPtr left = negation();
  while (stream_.skip_name("and"))
    left = make(ExpressionKind::kAnd, line, list_of(std::move(left), negation()));
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const int line = stream_.current().line;
  if (!stream_.current().is_name("not")) return comparison();
  const DepthGuard guard(stream_, depth_);
  stream_.next();
  return make(ExpressionKind::kNot, line, list_of(negation()));
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = stream_.current().line;
  ExpressionPtr first = sum();
  std::vector<std::string> operators;
  std::vector<ExpressionPtr> children = list_of(std::move(first));
  while (true) {
    const Token& token = stream_.current();
    const bool symbol = token.kind == TokenKind::kOperator &&
                        (token.text == "==" || token.text == "!=" || token.text == "<" ||
                         token.text == "<=" || token.text == ">" || token.text == ">=");
    if (symbol || token.is_name("in")) {
      operators.push_back(stream_.next().text);
    } else if (token.is_name("not") && stream_.look().is_name("in")) {
      stream_.next();
      stream_.next();
      operators.push_back("not in");
    } else {
      break;
    }
    children.push_back(sum());
  }
  if (operators.empty()) return std::move(children[0]);
  ExpressionPtr node = make(ExpressionKind::kCompare, line, std::move(children));
  node->operators = std::move(operators);
  return node;
}

ExpressionPtr ExpressionParser::binary(ExpressionPtr left, ExpressionPtr right, const Token& op) {
  ExpressionPtr node = make(ExpressionKind::kBinary, op.line, list_of(std::move(left), std::move(right)));
  node->name = op.text;
  return node;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (stream_.current().is_operator("+") || stream_.current().is_operator("-")) {
    const Token op = stream_.next();
    left = binary(std::move(left), concatenation(), op);
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = stream_.current().line;
  std::vector<ExpressionPtr> parts = list_of(product());
  while (stream_.skip_operator("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make(ExpressionKind::kConcat, line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (true) {
    const Token& token = stream_.current();
    const bool matches =
        token.is_operator("*") || token.is_operator("/") || token.is_operator("//") || token.is_operator("%");
    if (!matches) return left;
    const Token op = stream_.next();
    left = binary(std::move(left), power(), op);
  }
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(true);
  while (stream_.current().is_operator("**")) {
    const Token op = stream_.next();
    left = binary(std::move(left), unary(true), op);
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filter) {
  const DepthGuard guard(stream_, depth_);
  const int line = stream_.current().line;
  ExpressionPtr node;
  if (stream_.skip_operator("-")) {
    node = make(ExpressionKind::kNegative, line, list_of(unary(false)));
  } else if (stream_.skip_operator("+")) {
    node = make(ExpressionKind::kPositive, line, list_of(unary(false)));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  const Token token = stream_.current();
  if (token.kind == TokenKind::kName) {
    stream_.next();
    ExpressionPtr node = make(ExpressionKind::kConstant, token.line);
    if (token.text == "true" || token.text == "True") {
      node->constant = Value(true);
    } else if (token.text == "false" || token.text == "False") {
      node->constant = Value(false);
    } else if (token.text != "none" && token.text != "None") {
      node->kind = ExpressionKind::kName;
      node->name = token.text;
      mentions_.varargs = mentions_.varargs || token.text == "varargs";
      mentions_.kwargs = mentions_.kwargs || token.text == "kwargs";
      mentions_.caller = mentions_.caller || token.text == "caller";
    }
    return node;
  }
  if (token.kind == TokenKind::kString) {
    std::string text;
    while (stream_.current().kind == TokenKind::kString) text += stream_.next().text;
    ExpressionPtr node = make(ExpressionKind::kConstant, token.line);
    node->constant = Value(std::move(text));
    return node;
  }
  if (token.kind == TokenKind::kInteger) return integer();
  if (token.kind == TokenKind::kFloat) {
    stream_.next();
    double value = 0;
    std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
    ExpressionPtr node = make(ExpressionKind::kConstant, token.line);
    node->constant = Value(value);
    return node;
  }
  if (stream_.skip_operator("(")) {
    ExpressionPtr node = tuple(true, nullptr, true);
    stream_.expect_operator(")");
    return node;
  }
  if (token.is_operator("[")) return list();
  if (token.is_operator("{")) return dict();
  stream_.unexpected("an expression");
}

ExpressionPtr ExpressionParser::integer() {
  const Token token = stream_.next();
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0') {
    const char letter = static_cast<char>(digits[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10) digits.remove_prefix(2);
  }
  int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (result.ec != std::errc()) {
    stream_.fail_at(token.line, "expected integers of at most 63 bits, found " + printable(token.text, 40));
  }
  ExpressionPtr node = make(ExpressionKind::kConstant, token.line);
  node->constant = Value(value);
  return node;
}

ExpressionPtr ExpressionParser::list() {
  const int line = stream_.next().line;
  std::vector<ExpressionPtr> items;
  while (!stream_.current().is_operator("]")) {
    if (!items.empty()) stream_.expect_operator(",");
    if (stream_.current().is_operator("]")) break;
    items.push_back(expression());
  }
  stream_.expect_operator("]");
  return make(ExpressionKind::kList, line, std::move(items));
}

ExpressionPtr ExpressionParser::dict() {
  const int line = stream_.next().line;
  std::vector<ExpressionPtr> items;
  while (!stream_.current().is_operator("}")) {
    if (!items.empty()) stream_.expect_operator(",");
    if (stream_.current().is_operator("}")) break;
    items.push_back(expression());
    stream_.expect_operator(":");
    items.push_back(expression());
  }
  stream_.expect_operator("}");
  return make(ExpressionKind::kDict, line, std::move(items));
}

bool ExpressionParser::at_tuple_end(const char* end_name) const {
  const Token& token = stream_.current();
  return token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd ||
         token.is_operator(")") || (end_name != nullptr && token.is_name(end_name));
}

ExpressionPtr ExpressionParser::tuple(bool with_condition, const char* end_name, bool parenthesized) {
  const int line = stream_.current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) stream_.expect_operator(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(condition(with_condition));
    if (!stream_.current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return std::move(items[0]);
    if (!parenthesized) stream_.unexpected("an expression");
  }
  return make(ExpressionKind::kTuple, line, std::move(items));
}

Target ExpressionParser::target(const char* end_name, bool with_namespace) {
  const DepthGuard guard(stream_, depth_);
  std::vector<Target> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) stream_.expect_operator(",");
    if (at_tuple_end(end_name) || stream_.current().is_operator("=")) break;
    Target part;
    if (stream_.skip_operator("(")) {
      part = target(nullptr, with_namespace);
      stream_.expect_operator(")");
    } else {
      const Token name = stream_.expect(TokenKind::kName);
      for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
        if (name.text == constant) stream_.fail_at(name.line, "can't assign to '" + name.text + "'");
      }
      part.name = name.text;
      if (with_namespace && stream_.skip_operator("."))
        part.attribute = stream_.expect(TokenKind::kName).text;
    }
    parts.push_back(std::move(part));
    if (!stream_.current().is_operator(",")) break;
    is_tuple = true;
  }
  if (parts.empty()) stream_.unexpected("a name");
  if (!is_tuple) return std::move(parts[0]);
  Target all;
  all.parts = std::move(parts);
  return all;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    const Token& token = stream_.current();
    if (token.is_operator(".") || token.is_operator("[")) {
      node = subscript(std::move(node));
    } else if (token.is_operator("(")) {
      const int line = token.line;
      ExpressionPtr call = make(ExpressionKind::kCall, line, list_of(std::move(node)));
      arguments(*call);
      node = done(std::move(call));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    const Token& token = stream_.current();
    if (token.is_operator("|")) {
      node = filters(std::move(node), false);
    } else if (token.is_name("is")) {
      node = test(std::move(node));
    } else if (token.is_operator("(")) {
      ExpressionPtr call = make(ExpressionKind::kCall, token.line, list_of(std::move(node)));
      arguments(*call);
      node = done(std::move(call));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr node) {
  const Token token = stream_.next();
  if (token.text == ".") {
    const Token attribute = stream_.current();
    if (attribute.kind == TokenKind::kInteger) {
      ExpressionPtr index = integer();
      return make(ExpressionKind::kSubscript, token.line, list_of(std::move(node), std::move(index)));
    }
    ExpressionPtr access = make(ExpressionKind::kAttribute, token.line, list_of(std::move(node)));
    access->name = stream_.expect(TokenKind::kName).text;
    return access;
  }
  const auto ends_part = [&] {
    return stream_.current().is_operator("]") || stream_.current().is_operator(":");
  };
  ExpressionPtr start = stream_.current().is_operator(":") ? nullptr : expression();
  if (stream_.skip_operator("]")) {
    return make(ExpressionKind::kSubscript, token.line, list_of(std::move(node), std::move(start)));
  }
  if (stream_.current().is_operator(","))
    stream_.fail_at(token.line, "subscripts of several parts are not supported");
  stream_.expect_operator(":");
  ExpressionPtr stop = ends_part() ? nullptr : expression();
  ExpressionPtr step = stream_.skip_operator(":") && !ends_part() ? expression() : nullptr;
  stream_.expect_operator("]");
  std::vector<ExpressionPtr> children = list_of(std::move(node), std::move(start));
  children.push_back(std::move(stop));
  children.push_back(std::move(step));
  return make(ExpressionKind::kSlice, token.line, std::move(children));
}

void ExpressionParser::arguments(Expression& call) {
  stream_.expect_operator("(");
  bool first = true;
  while (!stream_.current().is_operator(")")) {
    if (!first) stream_.expect_operator(",");
    if (stream_.current().is_operator(")")) break;
    first = false;
    const Token& token = stream_.current();
    if (token.is_operator("*") || token.is_operator("**")) {
      ExpressionPtr& spread = token.is_operator("*") ? call.spread : call.spread_named;
      if (spread || call.spread_named) stream_.unexpected("no more arguments");
      stream_.next();
      spread = expression();
      continue;
    }
    if (call.spread_named) stream_.unexpected("no more arguments");
    if (token.kind == TokenKind::kName && stream_.look().is_operator("=")) {
      std::string name = stream_.next().text;
      stream_.next();
      for (const auto& [known, value] : call.named) {
        if (known == name) stream_.fail_at(token.line, "keyword argument repeated: " + name);
      }
      if (call.named.size() >= kMaxNames)
        stream_.fail_at(token.line, fmt::format("more than {} arguments by name", kMaxNames));
      call.named.emplace_back(std::move(name), expression());
    } else {
      if (!call.named.empty() || call.spread)
        stream_.fail_at(token.line, "positional argument behind a keyword argument");
      call.children.push_back(expression());
    }
  }
  stream_.expect_operator(")");
}

void ExpressionParser::missing(int line, const char* kind, const std::string& name) {
  if (!conditional_) missing_.emplace_back(line, fmt::format("no {} named '{}' is supported", kind, name));
}

void ExpressionParser::check_names() const {
  if (!missing_.empty()) stream_.fail_at(missing_[0].first, missing_[0].second);
}

std::string ExpressionParser::dotted_name() {
  std::string name = stream_.expect(TokenKind::kName).text;
  while (stream_.skip_operator(".")) name += "." + stream_.expect(TokenKind::kName).text;
  return name;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr value, bool start) {
  while (start || stream_.current().is_operator("|")) {
    if (!start) stream_.next();
    start = false;
    const int line = stream_.current().line;
    auto node = std::make_unique<Expression>();
    node->kind = ExpressionKind::kFilter;
    node->line = line;
    node->name = dotted_name();
    node->built_in = find_filter(node->name);
    node->children.push_back(std::move(value));
    if (node->built_in == nullptr) missing(line, "filter", node->name);
    if (stream_.current().is_operator("(")) arguments(*node);
    value = done(std::move(node));
  }
  return value;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  auto node = std::make_unique<Expression>();
  node->kind = ExpressionKind::kTest;
  node->line = line;
  node->name = dotted_name();
  node->built_in = find_test(node->name);
  node->children.push_back(std::move(value));
  if (node->built_in == nullptr) missing(line, "test", node->name);
  const Token& token = stream_.current();
  const bool starts_argument = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                               token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat ||
                               token.is_operator("[") || token.is_operator("{");
  if (token.is_operator("(")) {
    arguments(*node);
  } else if (starts_argument && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) stream_.fail_at(line, "tests cannot be chained with is");
    node->children.push_back(postfix(primary()));
  }
  ExpressionPtr result = done(std::move(node));
  return negated ? make(ExpressionKind::kNot, line, list_of(std::move(result))) : std::move(result);
}

void ExpressionParser::macro_parameters(Macro& macro) {
  stream_.expect_operator("(");
  while (!stream_.current().is_operator(")")) {
    if (!macro.parameters.empty()) stream_.expect_operator(",");
    const Token name = stream_.expect(TokenKind::kName);
    if (stream_.skip_operator("=")) {
      macro.defaults.push_back(expression());
    } else if (!macro.defaults.empty()) {
      stream_.fail_at(name.line, "a parameter without default behind one with a default");
    }
    if (std::count(macro.parameters.begin(), macro.parameters.end(), name.text) > 0)
      stream_.fail_at(name.line, "two parameters of the name '" + printable(name.text) + "'");
    if (macro.parameters.size() >= kMaxNames)
      stream_.fail_at(name.line, fmt::format("more than {} parameters", kMaxNames));
    macro.parameters.push_back(name.text);
  }
  stream_.expect_operator(")");
}

}  // namespace atom::text::jinja
