#include "text/jinja/string_format.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/format.h"
#include "text/jinja/number_format.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// repr() with everything beyond ASCII escaped.
std::string ascii_repr(const Value& value) {
  const std::string text = to_repr(value);
  std::string out;
  std::string_view rest = text;
  while (!rest.empty()) {
    const Utf8Char c = decode_utf8(rest);
    const auto point = static_cast<uint32_t>(c.code_point);
    out += point < 0x80      ? std::string(1, static_cast<char>(point))
           : point < 0x100   ? fmt::format("\\x{:02x}", point)
           : point < 0x10000 ? fmt::format("\\u{:04x}", point)
                             : fmt::format("\\U{:08x}", point);
    rest.remove_prefix(c.length);
  }
  return out;
}

/// The % operator, from one conversion to the next.
class Percent {
 public:
  Percent(Evaluator& evaluator, std::string_view format, const Value& argument)
      : evaluator_(evaluator), rest_(format), argument_(argument) {
    is_tuple_ = argument.is_sequence(SequenceKind::kTuple);
    if (is_tuple_) {
      values_ = argument.list().items;
    } else {
      values_ = {argument};
    }
  }

  std::string run() {
    std::string out;
    while (!rest_.empty()) {
      const size_t percent = rest_.find('%');
      out += rest_.substr(0, percent);
      if (percent == std::string_view::npos) break;
      rest_.remove_prefix(percent + 1);
      out += conversion();
      require(out.size() <= evaluator_.max_text_bytes(), "a text grows beyond {} bytes",
              evaluator_.max_text_bytes());
    }
    // What can be subscripted counts as a mapping, whose values need not all be used.
    const bool mapping = argument_.is_dict() || argument_.is_undefined() ||
                         argument_.is_sequence(SequenceKind::kList) ||
                         argument_.is_sequence(SequenceKind::kRange);
    require(used_ == values_.size() || mapping, "not all arguments converted during string formatting");
    return out;
  }

 private:
  char take() {
    require(!rest_.empty(), "incomplete format");
    const char c = rest_[0];
    rest_.remove_prefix(1);
    return c;
  }

  const Value& next_value() {
    require(used_ < values_.size(), "not enough arguments for format string");
    return values_[used_++];
  }

  /// A number in the format, or the next value for `*`.
  int64_t number() {
    int64_t value = 0;
    if (!rest_.empty() && rest_[0] == '*') {
      rest_.remove_prefix(1);
      const Value& given = next_value();
      require(given.is_int() || given.is_bool(), "* wants int");
      value = given.integer();
    } else {
      const auto result = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
      require(result.ec != std::errc::result_out_of_range, "width too big");
      rest_.remove_prefix(static_cast<size_t>(result.ptr - rest_.data()));
    }
    require(std::abs(value) <= kMaxFormatWidth, "expected a width or precision of at most {}, found {}",
            kMaxFormatWidth, value);
    return value;
  }

  std::string conversion() {
    std::optional<Value> named;
    FormatSpec spec;
    spec.sign = '-';
    if (!rest_.empty() && rest_[0] == '(') {
      named = named_value();
    }
    bool left = false;
    bool zero = false;
    while (!rest_.empty() && std::string_view("-+ #0").find(rest_[0]) != std::string_view::npos) {
      const char flag = take();
      left = left || flag == '-';
      zero = zero || flag == '0';
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
      spec.alternate = spec.alternate || flag == '#';
    }
    spec.width = number();
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (!rest_.empty() && rest_[0] == '.') {
      rest_.remove_prefix(1);
      spec.precision = std::max<int64_t>(number(), 0);
    }
    if (!rest_.empty() && std::string_view("hlL").find(rest_[0]) != std::string_view::npos) take();
    spec.type = take();
    if (spec.type == '%') return "%";
    require(std::string_view("diuxXoeEfFgGcsra").find(spec.type) != std::string_view::npos,
            "unsupported format character '{}'", printable(std::string(1, spec.type)));
    const Value value = named ? *named : next_value();
    if (left) {
      spec.align = '<';
    } else if (zero && std::string_view("csra").find(spec.type) == std::string_view::npos) {
      spec.align = '=';
      spec.fill = "0";
    } else {
      spec.align = '>';
    }
    return converted(value, spec);
  }

  Value named_value() {
    require(argument_.is_dict(), "format requires a mapping");
    size_t depth = 0;
    size_t end = 0;
    for (; end < rest_.size(); ++end) {
      if (rest_[end] == '(') ++depth;
      if (rest_[end] == ')' && --depth == 0) break;
    }
    require(end < rest_.size(), "incomplete format key");
    const std::string key(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    const Value* value = argument_.dict().find_text(key);
    require(value != nullptr, "the format names the missing key '{}'", printable(key));
    used_ = values_.size();
    return *value;
  }

  static std::string converted(const Value& value, FormatSpec spec) {
    const char type = spec.type;
    if (type == 's' || type == 'r' || type == 'a') {
      spec.type = 0;
      spec.sign = 0;
      spec.alternate = false;
      const std::string text = type == 's'   ? to_text(value)
                               : type == 'r' ? to_repr(value)
                                             : ascii_repr(value);
      return format_value(Value(text), spec);
    }
    if (type == 'c') {
      spec.precision = -1;
      if (value.is_string()) {
        require(char_count(value.string()) == 1, "%c requires int or char");
        return pad("", value.string(), spec, '>');
      }
      require(value.is_int() || value.is_bool(), "%c requires int or char");
      spec.type = 'c';
      spec.sign = 0;
      spec.alternate = false;
      return format_value(value, spec);
    }
    require(value.is_number(), "%{} format: a real number is required, not {}", type, value.type_name());
    if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      const double number = value.number();
      const bool negative = std::signbit(number) && !std::isnan(number);
      return pad(sign_of(negative, spec),
                 float_digits(std::abs(number), type, spec.precision, spec.alternate), spec, '>');
    }
    if (value.is_float()) {
      require(type == 'd' || type == 'i' || type == 'u', "%{} format: an integer is required, not float",
              type);
      require(std::abs(value.number()) < 9e18, "integers beyond 64 bits are not supported");
    }
    const int64_t number = value.is_float() ? static_cast<int64_t>(value.number()) : value.integer();
    const int base = type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    std::string digits = integer_digits(number, base, type == 'X');
    if (spec.precision > static_cast<int64_t>(digits.size()))
      digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
    std::string prefix = sign_of(number < 0, spec);
    if (spec.alternate && base != 10) prefix += std::string("0") + type;
    return pad(prefix, digits, spec, '>');
  }

  static std::string sign_of(bool negative, const FormatSpec& spec) {
    return negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  }

  Evaluator& evaluator_;
  std::string_view rest_;
  const Value& argument_;
  bool is_tuple_ = false;
  std::vector<Value> values_;
  size_t used_ = 0;
};

/// str.format, from one replacement field to the next.
class Braces {
 public:
  Braces(Evaluator& evaluator, const Arguments& arguments) : evaluator_(evaluator), arguments_(arguments) {}

  std::string run(std::string_view format, int depth) {
    require(depth > 0, "Max string recursion exceeded");
    std::string out;
    while (!format.empty()) {
      const char c = format[0];
      const bool doubled = format.size() > 1 && format[1] == c;
      if ((c != '{' && c != '}') || doubled) {
        out += c;
        format.remove_prefix(c == '{' || c == '}' ? 2 : 1);
        continue;
      }
      require(c == '{', "Single '}}' encountered in format string");
      size_t nested = 0;
      size_t end = 0;
      for (; end < format.size(); ++end) {
        if (format[end] == '{') ++nested;
        if (format[end] == '}' && --nested == 0) break;
      }
      require(end < format.size(), "expected '}}' before end of string");
      out += field(format.substr(1, end - 1), depth);
      format.remove_prefix(end + 1);
      require(out.size() <= evaluator_.max_text_bytes(), "a text grows beyond {} bytes",
              evaluator_.max_text_bytes());
      evaluator_.charge(1);
    }
    return out;
  }

 private:
  /// name[!conversion][:specification]
  std::string field(std::string_view text, int depth) {
    size_t end = 0;
    bool in_brackets = false;
    for (; end < text.size(); ++end) {
      if (text[end] == '[') in_brackets = true;
      if (text[end] == ']') in_brackets = false;
      require(text[end] != '{', "unexpected '{{' in field name");
      if (!in_brackets && (text[end] == '!' || text[end] == ':')) break;
    }
    Value value = lookup(text.substr(0, end));
    text.remove_prefix(end);
    if (text.starts_with('!')) {
      require(text.size() > 1, "end of string while looking for conversion specifier");
      const char conversion = text[1];
      require(conversion == 's' || conversion == 'r' || conversion == 'a',
              "Unknown conversion specifier '{}'", printable(std::string(1, conversion)));
      value = Value(conversion == 's'   ? to_text(value)
                    : conversion == 'r' ? to_repr(value)
                                        : ascii_repr(value));
      text.remove_prefix(2);
      require(text.empty() || text[0] == ':', "expected ':' after conversion specifier");
    }
    const std::string spec = text.empty() ? "" : run(text.substr(1), depth - 1);
    if (spec.empty()) return to_text(value);
    return format_value(value, parse_format_spec(spec));
  }

  Value lookup(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = first(path.substr(0, end));
    path.remove_prefix(end);
    while (!path.empty()) {
      evaluator_.charge(1);
      if (path[0] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", 1), path.size());
        require(stop > 1, "Empty attribute in format string");
        value = evaluator_.get_attribute(value, std::string(path.substr(1, stop - 1)));
        path.remove_prefix(stop);
        continue;
      }
      require(path[0] == '[', "Only '.' or '[' may follow ']' in format field specifier");
      const size_t stop = path.find(']');
      require(stop != std::string_view::npos, "Missing ']' in format string");
      const std::string_view key = path.substr(1, stop - 1);
      require(!key.empty(), "Empty attribute in format string");
      value = evaluator_.get_item(value, all_digits(key) ? Value(index(key)) : Value(key));
      path.remove_prefix(stop + 1);
    }
    return value;
  }

  Value first(std::string_view name) {
    if (!name.empty() && !all_digits(name)) {
      for (const auto& [known, value] : arguments_.named) {
        if (known == name) return value;
      }
      fail("the format names the missing argument '{}'", printable(std::string(name)));
    }
    const bool automatic = name.empty();
    require(numbering_ == (automatic ? 'a' : 'm') || numbering_ == 0,
            "cannot switch between manual field specification and automatic field numbering");
    numbering_ = automatic ? 'a' : 'm';
    const int64_t at = automatic ? next_++ : index(name);
    require(at < static_cast<int64_t>(arguments_.positional.size()),
            "Replacement index {} out of range for positional args tuple", at);
    return arguments_.positional[static_cast<size_t>(at)];
  }

  static bool all_digits(std::string_view text) { return std::all_of(text.begin(), text.end(), is_digit); }

  static int64_t index(std::string_view text) {
    int64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    require(result.ec == std::errc(), "Too many decimal digits in format string");
    return value;
  }

  Evaluator& evaluator_;
  const Arguments& arguments_;
  int64_t next_ = 0;
  char numbering_ = 0;  // a(utomatic) or m(anual), once one was seen
};

}  // namespace

Value format_percent(Evaluator& evaluator, const Value& format, const Value& argument) {
  require(!format.is_markup(), "'%' on safe text is not supported");
  std::string text = Percent(evaluator, format.string(), argument).run();
  evaluator.charge_text(text.size());
  return Value(std::move(text));
}

Value format_braces(Evaluator& evaluator, const Value& format, const Arguments& arguments) {
  std::string text = Braces(evaluator, arguments).run(format.string(), 2);
  evaluator.charge_text(text.size());
  return Value(std::move(text));
}

}  // namespace atom::text::jinja
