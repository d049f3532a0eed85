#include "text/jinja/lexer.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

/// Every line break as \n, and one at the end removed.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name)
      : source_(normalize_newlines(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) root();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(const std::string& message) const {
    fail("{}: line {}: {}", name_, line_, message);
  }

  bool at(std::string_view word) const { return source_.compare(pos_, word.size(), word) == 0; }
  char peek(size_t ahead = 0) const { return pos_ + ahead < source_.size() ? source_[pos_ + ahead] : '\0'; }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Moves on, counting lines.
  void advance_to(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    if (end > pos_) line_starting_ = source_[end - 1] == '\n';
    pos_ = end;
  }

  size_t skip_white_space(size_t i) const {
    return i + white_space_prefix(std::string_view(source_).substr(i));
  }

  /// Text up to the next tag, and the begin of that tag.
  void root() {
    size_t tag = pos_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(TokenKind::kData, source_.substr(pos_));
        return advance_to(source_.size());
      }
      if (std::strchr("{%#", source_[tag + 1]) != nullptr && source_[tag + 1] != '\0') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+')
                          ? source_[tag + 2]
                          : 0;
    std::string_view text(source_.data() + pos_, tag - pos_);
    if (sign == '-') {
      text = strip_white_space_right(text);
    } else if (sign != '+' && kind != '{') {
      text = strip_line_indent(text);
    }
    if (!text.empty()) add(TokenKind::kData, std::string(text));
    advance_to(tag + (sign ? 3 : 2));
    if (kind == '#') return comment();
    if (kind == '%') {
      if (const size_t body = raw_body()) return raw(body);
    }
    add(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
    tag_tokens(kind == '{');
  }

  /// lstrip_blocks: white space between the begin of the line and the tag goes.
  std::string_view strip_line_indent(std::string_view text) const {
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if (line == 0 && !line_starting_) return text;
    const std::string_view indent = text.substr(line);
    return !indent.empty() && white_space_prefix(indent) == indent.size() ? text.substr(0, line) : text;
  }

  /// End of a closing tag at `i`: the tag and the white space it takes along; 0 when there is none.
  size_t closing_end(size_t i, std::string_view tag, bool trims_newline) const {
    const auto tag_at = [&](size_t k) {
      return source_.compare(k, tag.size(), tag) == 0 && k < source_.size();
    };
    if (i >= source_.size()) return 0;
    if (source_[i] == '-' && tag_at(i + 1)) return skip_white_space(i + 1 + tag.size());
    if (trims_newline && source_[i] == '+' && tag_at(i + 1)) return i + 1 + tag.size();
    if (!tag_at(i)) return 0;
    const size_t end = i + tag.size();
    return trims_newline && end < source_.size() && source_[end] == '\n' ? end + 1 : end;
  }

  void comment() {
    for (size_t i = pos_; i < source_.size(); ++i) {
      if (source_[i] != '#' && source_[i] != '-' && source_[i] != '+') continue;
      if (const size_t end = closing_end(i, "#}", true)) return advance_to(end);
    }
    error("Missing end of comment tag");
  }

  /// Begin of the body when `raw %}` stands at pos_, 0 otherwise.
  size_t raw_body() const {
    size_t i = skip_white_space(pos_);
    if (source_.compare(i, 3, "raw") != 0) return 0;
    i = skip_white_space(i + 3);
    if (source_.compare(i, 3, "-%}") == 0) return skip_white_space(i + 3);
    return source_.compare(i, 2, "%}") == 0 ? i + 2 : 0;
  }

  void raw(size_t body) {
    advance_to(body);
    for (size_t tag = source_.find("{%", body); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      size_t i = tag + 2;
      const char sign = i < source_.size() && (source_[i] == '-' || source_[i] == '+') ? source_[i] : '\0';
      if (sign != '\0') ++i;
      i = skip_white_space(i);
      if (source_.compare(i, 6, "endraw") != 0) continue;
      const size_t end = closing_end(skip_white_space(i + 6), "%}", true);
      if (end == 0) continue;
      std::string_view text(source_.data() + body, tag - body);
      if (sign == '-') {
        text = strip_white_space_right(text);
      } else if (sign != '+') {
        text = strip_line_indent(text);
      }
      if (!text.empty()) add(TokenKind::kData, std::string(text));
      return advance_to(end);
    }
    error("Missing end of raw directive");
  }

  void tag_tokens(bool variable) {
    std::string brackets;
    while (true) {
      const size_t white = skip_white_space(pos_);
      if (brackets.empty()) {
        const size_t end = closing_end(pos_, variable ? "}}" : "%}", !variable);
        if (end != 0) {
          add(variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
          return advance_to(end);
        }
      }
      if (pos_ >= source_.size()) {
        error(variable ? "unexpected end of template, expected '}}'"
                       : "unexpected end of template, expected '%}'");
      }
      if (white > pos_) {
        advance_to(white);
      } else if (is_digit(peek())) {
        number();
      } else if (is_name_char(peek())) {
        size_t end = pos_;
        while (end < source_.size() && is_name_char(source_[end])) ++end;
        add(TokenKind::kName, source_.substr(pos_, end - pos_));
        advance_to(end);
      } else if (peek() == '\'' || peek() == '"') {
        string();
      } else {
        operator_token(brackets);
      }
    }
  }

  /// End of the digits at `i`, which single underscores may part.
  size_t digits_end(size_t i, const char* digits) const {
    const auto is_one = [&](size_t k) {
      return k < source_.size() && source_[k] != '\0' && std::strchr(digits, source_[k]) != nullptr;
    };
    while (is_one(i) || (i > 0 && i < source_.size() && source_[i] == '_' && is_one(i - 1) && is_one(i + 1)))
      ++i;
    return i;
  }

  void number() {
    constexpr const char* kDecimal = "0123456789";
    size_t end = digits_end(pos_, kDecimal);
    bool is_float = false;
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
    if (!after_dot) {
      size_t i = end;
      if (i + 1 < source_.size() && source_[i] == '.' && is_digit(source_[i + 1])) {
        i = digits_end(i + 1, kDecimal);
        is_float = true;
      }
      if (i < source_.size() && (source_[i] == 'e' || source_[i] == 'E')) {
        size_t k = i + 1;
        if (k < source_.size() && (source_[k] == '+' || source_[k] == '-')) ++k;
        if (k < source_.size() && is_digit(source_[k])) {
          i = digits_end(k, kDecimal);
          is_float = true;
        }
      }
      end = i;
    }
    if (!is_float && source_[pos_] == '0') end = zero_end();
    std::string text = source_.substr(pos_, end - pos_);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    add(is_float ? TokenKind::kFloat : TokenKind::kInteger, text);
    advance_to(end);
  }

  /// Integers that begin with 0: 0x.., 0o.., 0b.. or zeros alone.
  size_t zero_end() const {
    const char base = static_cast<char>(peek(1) | 0x20);
    const char* digits = base == 'x'   ? "0123456789abcdefABCDEF"
                         : base == 'o' ? "01234567"
                         : base == 'b' ? "01"
                                       : nullptr;
    if (digits != nullptr) {
      const size_t begin = pos_ + (peek(2) == '_' ? 3 : 2);
      const size_t end = digits_end(begin, digits);
      if (end > begin) return end;
    }
    return digits_end(pos_, "0");
  }

  void string() {
    const char quote = peek();
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("a string without end");
    add(TokenKind::kString, unescape(std::string_view(source_).substr(pos_ + 1, end - pos_ - 1)));
    advance_to(end + 1);
  }

  /// Python's escapes in a string literal.
  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      constexpr std::string_view kLetters = "abfnrtv\\'\"";
      constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t k = kLetters.find(c); k != std::string_view::npos) {
        out += kMeanings[k];
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        char32_t value = 0;
        size_t digits = 0;
        for (; digits < 3 && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++digits, ++i) {
          value = value * 8 + static_cast<char32_t>(text[i] - '0');
        }
        --i;
        append_utf8(out, value);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const std::string hex(text.substr(i + 1, digits));
        const bool valid =
            hex.size() == digits && hex.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
        if (!valid) error(std::string("truncated \\") + c + " escape");
        const auto value = static_cast<char32_t>(std::stoul(hex, nullptr, 16));
        if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) error("an escape that is no character");
        append_utf8(out, value);
        i += digits;
      } else if (c == 'N') {
        error("\\N escapes are not supported");
      } else {
        // An unknown escape stays; Jinja writes what is not ASCII as an escape first.
        out += '\\';
        const Utf8Char next = decode_utf8(text.substr(i));
        const auto point = static_cast<uint32_t>(next.code_point);
        if (point < 0x80) {
          out += c;
        } else {
          out += point < 0x100     ? fmt::format("x{:02x}", point)
                 : point < 0x10000 ? fmt::format("u{:04x}", point)
                                   : fmt::format("U{:08x}", point);
          i += next.length - 1u;
        }
      }
    }
    return out;
  }

  void operator_token(std::string& brackets) {
    for (const std::string_view two : {"//", "**", "==", "!=", ">=", "<="}) {
      if (at(two)) {
        add(TokenKind::kOperator, std::string(two));
        return advance_to(pos_ + 2);
      }
    }
    const char c = peek();
    if (c == '\0' || std::strchr("+-/*%~[](){}><=.:|,;", c) == nullptr) {
      error("unexpected char '" +
            printable(source_.substr(pos_, decode_utf8(std::string_view(source_).substr(pos_)).length)) +
            "'");
    }
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) error(std::string("unexpected '") + c + "'");
      brackets.pop_back();
    }
    add(TokenKind::kOperator, std::string(1, c));
    advance_to(pos_ + 1);
  }

  std::string source_;
  const std::string& name_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source, const std::string& name) {
  require(source.size() <= kMaxTemplateBytes, "{}: expected a template of at most {} bytes, found {}", name,
          kMaxTemplateBytes, source.size());
  return Lexer(source, name).run();
}

}  // namespace atom::text::jinja
