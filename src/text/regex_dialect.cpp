#include <cstring>

#include <fmt/format.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/regex.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// Contents of character classes. White_Space without PCRE2's own addition U+180E, and its complement.
constexpr const char* kSpaceSet =
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{"
    "3000}";
constexpr const char* kNonSpaceSet =
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}";
constexpr const char* kHexSet = "0-9A-Fa-f";
// Han characters of Unicode 15.0 and 15.1, which have no place of their own among the categories.
constexpr const char* kHanAdditions = "\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";

struct LongName {
  const char* name;
  const char* category;
};
constexpr LongName kLongNames[] = {
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Other", "C"},
};

std::string additions_of(std::string_view category) {
  std::string set;
  for (const UnicodeRange& range : unicode_additions()) {
    if (std::string_view(range.category).substr(0, category.size()) != category) continue;
    set += fmt::format("\\x{{{:X}}}", static_cast<uint32_t>(range.first));
    if (range.last != range.first) set += fmt::format("-\\x{{{:X}}}", static_cast<uint32_t>(range.last));
  }
  return set;
}

std::string all_additions() {
  return additions_of("");
}

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// A set of characters: what stands between the brackets of a class, and whether it is meant negated.
struct CharSet {
  std::string content;
  bool negated = false;
};

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view field) : in_(pattern), field_(field) {}

  std::string run() {
    if (in_.substr(0, 4) == "(?i)") take("(?i)");
    while (pos_ < in_.size()) step();
    require(groups_.empty(), "{}: pattern \"{}\" lacks a closing parenthesis", field_, printable(in_));
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(const std::string& what) const {
    fail("{}: pattern \"{}\" uses {} at byte {}, which is not supported", field_, printable(in_),
         printable(what), pos_);
  }

  char peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool at(std::string_view word) const { return in_.substr(pos_, word.size()) == word; }
  void take(std::string_view word) {
    out_ += word;
    pos_ += word.size();
  }

  void step() {
    switch (peek()) {
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '[':
        return char_class();
      case '\\':
        return escape();
      case '*':
      case '+':
      case '?':
        return simple_quantifier();
      case '{':
        return brace();
      case '|':
        atom_ = std::string::npos;
        return take("|");
      default:
        return literal();
    }
  }

  void literal() {
    atom_ = out_.size();
    take(in_.substr(pos_, decode_utf8(in_.substr(pos_)).length));
  }

  void open_group() {
    groups_.push_back(out_.size());
    atom_ = std::string::npos;
    for (const char* kind : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (at(kind)) return take(kind);
    }
    if (at("(?") || at("(*")) unsupported("the group " + std::string(in_.substr(pos_, 4)));
    take("(");
  }

  void close_group() {
    require(!groups_.empty(), "{}: pattern \"{}\" has a closing parenthesis too many", field_,
            printable(in_));
    atom_ = groups_.back();
    groups_.pop_back();
    take(")");
  }

  void simple_quantifier() {
    if (atom_ == std::string::npos) unsupported("a quantifier without anything to repeat");
    take(in_.substr(pos_, 1));
    if (peek() == '+' || peek() == '?') take(in_.substr(pos_, 1));
    if (peek() == '+' || peek() == '?' || peek() == '*') unsupported("a quantifier of a quantifier");
  }

  /// `{n}`, `{n,}`, `{n,m}`, `{,m}`; any other brace stands for itself.
  void brace() {
    size_t i = pos_ + 1;
    const auto number = [&] {
      const size_t begin = i;
      while (i < in_.size() && is_digit(in_[i])) ++i;
      return std::string(in_.substr(begin, i - begin));
    };
    const std::string low = number();
    const bool comma = i < in_.size() && in_[i] == ',';
    if (comma) ++i;
    const std::string high = comma ? number() : low;
    const bool closed = i < in_.size() && in_[i] == '}';
    if (!closed || (low.empty() && high.empty())) {
      atom_ = out_.size();
      out_ += "\\{";
      ++pos_;
      return;
    }
    if (atom_ == std::string::npos) unsupported("a quantifier without anything to repeat");
    pos_ = i + 1;
    const std::string range =
        comma ? fmt::format("{{{},{}}}", low.empty() ? "0" : low, high) : fmt::format("{{{}}}", low);
    if (peek() == '+') {
      out_.insert(atom_, "(?:");
      out_ += range + ")+";
      ++pos_;
    } else {
      out_ += range;
      if (peek() == '?' && !comma) unsupported("{n}?");
      if (peek() == '?') take("?");
    }
    if (peek() == '+' || peek() == '?' || peek() == '*') unsupported("a quantifier of a quantifier");
  }

  /// Reads `\p{Name}` or `\P{Name}` behind the letter.
  CharSet property(bool negated) {
    const size_t end = in_.find('}', pos_);
    if (peek() != '{' || end == std::string_view::npos) unsupported("\\p without braces");
    std::string name(in_.substr(pos_ + 1, end - pos_ - 1));
    pos_ = end + 1;
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.erase(0, 1);
    }
    for (const LongName& known : kLongNames) {
      if (name == known.name) name = known.category;
    }
    for (const char c : name) {
      if (!is_alnum(c) && c != '_') unsupported("\\p{" + name + "}");
    }
    if (name.empty()) unsupported("\\p{}");
    if (name.size() <= 2) return {"\\p{" + name + "}" + additions_of(name), negated};
    if (name == "Han") return {std::string("\\p{sc:Han}") + kHanAdditions, negated};
    if (name == "Alphabetic") return {"\\p{Alphabetic}" + additions_of("L"), negated};
    return {"\\p{sc:" + name + "}", negated};
  }

  /// Reads the escape at the backslash when it stands for a set; returns false and stays where it is
  /// otherwise.
  bool escaped_set(CharSet& set) {
    const char c = peek(1);
    if (std::strchr("sSdDwWhHpP", c) == nullptr || c == '\0') return false;
    pos_ += 2;
    switch (c) {
      case 's':
        set = {kSpaceSet, false};
        break;
      case 'S':
        set = {kSpaceSet, true};
        break;
      case 'h':
        set = {kHexSet, false};
        break;
      case 'H':
        set = {kHexSet, true};
        break;
      case 'd':
        set = {"\\p{Nd}" + additions_of("Nd"), false};
        break;
      case 'D':
        set = {"\\p{Nd}" + additions_of("Nd"), true};
        break;
      case 'w':
      case 'W':
        set = {word_set(), c == 'W'};
        break;
      default:
        set = property(c == 'P');
        break;
    }
    return true;
  }

  static std::string word_set() {
    // Oniguruma also counts the superscripts and fractions of Latin-1.
    return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" + additions_of("L") +
           additions_of("M") + additions_of("Nd");
  }

  /// A place with a word character on one side alone; negated, any other place.
  void word_boundary(bool negated) {
    const std::string word = fmt::format("[{}]", word_set());
    const std::string place = fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word);
    out_ += negated ? fmt::format("(?!{})", place) : place;
    pos_ += 2;
  }

  /// An escape that stands for one character or a position.
  void escaped_char(bool in_class) {
    const char c = peek(1);
    switch (c) {
      case '\0':
        unsupported("a backslash at the end");
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return take(in_.substr(pos_, 2));
      case 'v':
        pos_ += 2;
        out_ += "\\x{B}";
        return;
      case 'u':
      case 'x':
        return hex_escape(c);
      case 'b':
      case 'B':
        if (in_class) break;
        return word_boundary(c == 'B');
      case 'A':
      case 'z':
      case 'Z':
        if (in_class) break;
        return take(in_.substr(pos_, 2));
      default:
        break;
    }
    if (is_alnum(c)) unsupported(std::string("\\") + c);
    if (static_cast<unsigned char>(c) < 0x80) return take(in_.substr(pos_, 2));
    ++pos_;
    take(in_.substr(pos_, decode_utf8(in_.substr(pos_)).length));
  }

  void hex_escape(char kind) {
    const bool braces = kind == 'x' && peek(2) == '{';
    size_t i = pos_ + (braces ? 3 : 2);
    const size_t most = braces ? 8 : kind == 'u' ? 4 : 2;
    uint32_t value = 0;
    size_t digits = 0;
    for (; i < in_.size() && digits < most && std::strchr("0123456789abcdefABCDEF", in_[i]) != nullptr;
         ++i, ++digits) {
      value = value * 16 + static_cast<uint32_t>(std::stoul(std::string(1, in_[i]), nullptr, 16));
    }
    const bool complete = braces ? (i < in_.size() && in_[i] == '}' && digits > 0) : digits == most;
    // \xHH beyond 7F is a byte of a UTF-8 sequence in Oniguruma.
    if (!complete || value > 0x10FFFF || (kind == 'x' && !braces && value > 0x7F))
      unsupported("this \\x or \\u");
    pos_ = i + (braces ? 1 : 0);
    out_ += fmt::format("\\x{{{:X}}}", value);
  }

  void escape() {
    const size_t begin = out_.size();
    CharSet set;
    if (escaped_set(set)) {
      if (set.content == "\\p{C}" + additions_of("C") || set.content == "\\p{Cn}") {
        // What PCRE2 takes for unassigned although it is assigned by now does not count.
        const std::string name = set.content.substr(0, set.content.find('}') + 1);
        out_ += set.negated ? "(?:[" + all_additions() + "]|[^" + name + "])"
                            : "(?:(?![" + all_additions() + "])" + name + ")";
      } else {
        out_ += (set.negated ? "[^" : "[") + set.content + "]";
      }
    } else {
      escaped_char(false);
    }
    atom_ = begin;
  }

  void char_class() {
    const size_t begin = out_.size();
    take("[");
    if (peek() == '^') take("^");
    if (peek() == ']') unsupported("an empty class");
    while (peek() != ']') {
      if (pos_ >= in_.size()) unsupported("a class without end");
      if (peek() == '[') unsupported("a class inside a class");
      if (at("&&")) unsupported("an intersection of classes");
      if (peek() == '\\') {
        CharSet set;
        if (!escaped_set(set)) {
          escaped_char(true);
        } else if (!set.negated) {
          if (set.content.substr(0, 5) == "\\p{C}" || set.content == "\\p{Cn}")
            unsupported("\\p{C} inside a class");
          out_ += set.content;
        } else if (set.content == kSpaceSet) {
          out_ += kNonSpaceSet;
        } else {
          unsupported("a negated property inside a class");
        }
      } else {
        take(in_.substr(pos_, decode_utf8(in_.substr(pos_)).length));
      }
    }
    take("]");
    atom_ = begin;
  }

  std::string_view in_;
  std::string_view field_;
  size_t pos_ = 0;
  std::string out_;
  std::vector<size_t> groups_;       // where each open group begins in out_
  size_t atom_ = std::string::npos;  // where the last repeatable item begins in out_
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, std::string_view field) {
  require(is_valid_utf8(pattern), "{}: the pattern is not valid UTF-8", field);
  return Translator(pattern, field).run();
}

}  // namespace atom::text
