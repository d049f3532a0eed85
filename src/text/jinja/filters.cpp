#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/filters_sequence.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_string.h"
#include "text/jinja/string_format.h"
#include "text/unicode.h"

namespace atom::text::jinja {
namespace {

constexpr int64_t kMaxIndent = 1000;

void refuse_undefined(const Value& value) {
  if (value.is_undefined()) fail("{}", value.undefined_message());
}

std::string charged_text(Evaluator& evaluator, const Value& value) {
  std::string text = to_text(value);
  evaluator.charge_text(text.size());
  return text;
}

template <std::string (*change)(std::string_view)>
Value mapped(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("a filter without parameters", arguments, {});
  std::string text = change(charged_text(evaluator, self));
  return like(self, std::move(text));
}

std::string identity(std::string_view text) {
  return std::string(text);
}

/// Jinja's title: words begin behind white space and - ( { [ <.
std::string title_filter(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto is_separator = [&](size_t i) {
    return std::string_view("-({[<").find(text[i]) != std::string_view::npos ||
           white_space_prefix(text.substr(i)) > 0;
  };
  for (size_t i = 0; i < text.size();) {
    if (!is_separator(i)) {
      ++i;
      continue;
    }
    out += capitalize(text.substr(begin, i - begin));
    const size_t white = white_space_prefix(text.substr(i));
    const size_t length = white > 0 ? white : 1;
    out += text.substr(i, length);
    begin = i += length;
  }
  return out += capitalize(text.substr(begin));
}

Value trim(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const BuiltIn strip = find_string_method("strip");
  const Value stripped = strip(evaluator, Value(charged_text(evaluator, self)), arguments);
  return like(self, stripped.string());
}

Value replace_filter(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t limit = bound.get(2) == nullptr || bound.get(2)->is_none() ? -1 : bound.integer_or(2, -1);
  std::string text = replace(charged_text(evaluator, self), to_text(*bound.get(0)), to_text(*bound.get(1)),
                             limit, evaluator.max_text_bytes());
  evaluator.charge_text(text.size());
  return Value(std::move(text));
}

Value indent(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  std::string prefix(4, ' ');
  if (const Value* width = bound.get(0)) {
    if (width->is_string()) {
      prefix = width->string();
    } else {
      const int64_t count = bound.integer_or(0, 4);
      require(count <= kMaxIndent, "indent(): expected a width of at most {}, found {}", kMaxIndent, count);
      prefix.assign(static_cast<size_t>(std::max<int64_t>(count, 0)), ' ');
    }
  }
  const bool blank = bound.get_or(2, Value(false)).truth();
  refuse_undefined(self);
  require(self.is_string(), "indent(): expected a string, found {}", self.type_name());
  const std::string text = self.string() + "\n";
  const std::vector<std::string_view> lines = split_lines(text, false);
  evaluator.charge_text(text.size() + lines.size() * prefix.size());
  std::string out = bound.get_or(1, Value(false)).truth() ? prefix : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n";
    if (i > 0 && (blank || !lines[i].empty())) out += prefix;
    out += lines[i];
  }
  return like(self, std::move(out));
}

Value default_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool missing = self.is_undefined() || (bound.get_or(1, Value(false)).truth() && !self.truth());
  return missing ? bound.get_or(0, Value("")) : self;
}

Value abs_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  refuse_undefined(self);
  require(self.is_number(), "bad operand type for abs(): '{}'", self.type_name());
  if (self.is_float()) return Value(std::abs(self.number()));
  require(self.integer() != INT64_MIN, "integers beyond 64 bits are not supported");
  return Value(std::abs(self.integer()));
}

std::optional<double> parse_float(std::string_view text) {
  text = strip_white_space_right(strip_white_space_left(text));
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  if (text.empty() || text[0] == '+') return std::nullopt;
  std::string without;
  if (text.find('_') != std::string_view::npos) {
    // Underscores may part digits.
    for (size_t i = 0; i < text.size(); ++i) {
      const auto digit = [&](size_t k) { return k < text.size() && text[k] >= '0' && text[k] <= '9'; };
      if (text[i] == '_' && (i == 0 || !digit(i - 1) || !digit(i + 1))) return std::nullopt;
      if (text[i] != '_') without += text[i];
    }
    text = without;
  }
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ptr != text.data() + text.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    // Too small is zero, too large is infinite.
    const bool small = text.find("e-") != std::string_view::npos || text.find("E-") != std::string_view::npos;
    value = small ? 0.0 : HUGE_VAL;
    return text[0] == '-' ? -value : value;
  }
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  text = strip_white_space_right(strip_white_space_left(text));
  std::string digits;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    if (text[0] == '-') digits = "-";
    text.remove_prefix(1);
  }
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool between = i > 0 && i + 1 < text.size() && text[i - 1] != '_';
    if (text[i] == '_' && between) continue;
    if (text[i] == '-') return std::nullopt;
    digits += text[i];
  }
  int64_t value = 0;
  const auto result =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (result.ptr != digits.data() + digits.size() || digits.empty()) return std::nullopt;
  require(result.ec != std::errc::result_out_of_range, "integers beyond 64 bits are not supported");
  return result.ec == std::errc() ? std::optional(value) : std::nullopt;
}

int64_t truncated(double value) {
  require(std::isfinite(value), "cannot convert float infinity to integer");
  require(std::abs(value) < 9.2e18, "integers beyond 64 bits are not supported");
  return static_cast<int64_t>(value);
}

Value int_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("int", arguments, {"value", "base"});
  refuse_undefined(self);
  const int64_t base = bound.integer_or(1, 10);
  require(base >= 2 && base <= 36, "int(): expected a base from 2 to 36, found {}", base);
  const Value fallback = bound.get_or(0, Value(int64_t{0}));
  if (self.is_int() || self.is_bool()) return Value(self.integer());
  if (self.is_float()) return std::isnan(self.number()) ? fallback : Value(truncated(self.number()));
  if (!self.is_string()) return fallback;
  if (const auto value = parse_integer(self.string(), base)) return Value(*value);
  const auto value = parse_float(self.string());
  return value && std::isfinite(*value) ? Value(truncated(*value)) : fallback;
}

Value float_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  refuse_undefined(self);
  if (self.is_number()) return Value(self.number());
  if (self.is_string()) {
    if (const auto value = parse_float(self.string())) return Value(*value);
  }
  return bound.get_or(0, Value(0.0));
}

/// To a multiple of 10^digits, halves to the even one.
int64_t rounded_integer(int64_t value, int64_t digits) {
  int64_t unit = 1;
  for (int64_t i = 0; i < digits; ++i) unit *= 10;
  const int64_t remainder = ((value % unit) + unit) % unit;
  const int64_t below = value - remainder;
  const bool up = remainder > unit - remainder || (remainder == unit - remainder && (below / unit) % 2 != 0);
  int64_t result = below;
  require(!up || !__builtin_add_overflow(below, unit, &result), "integers beyond 64 bits are not supported");
  return result;
}

double rounded_float(double value, int64_t digits) {
  const double unit = std::pow(10.0, static_cast<double>(digits));
  // Exact where the quotient is: nearbyint rounds halves to even.
  return std::nearbyint(value / unit) * unit;
}

Value round_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer_or(0, 0);
  const std::string method = bound.string_or(1, "common");
  refuse_undefined(self);
  require(self.is_number(), "round(): expected a number, found {}", self.type_name());
  require(precision >= -15 && precision <= 15, "round(): expected a precision from -15 to 15, found {}",
          precision);
  require(method == "common" || method == "ceil" || method == "floor",
          "method must be common, ceil or floor");
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = self.number() * scale;
    return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
  }
  if (!self.is_float()) return Value(rounded_integer(self.integer(), -precision));
  if (!std::isfinite(self.number())) {
    require(bound.get(0) != nullptr || std::isnan(self.number()), "cannot convert float infinity to integer");
    return self;
  }
  if (precision < 0) return Value(rounded_float(self.number(), -precision));
  const std::string digits = fmt::format("{:.{}f}", self.number(), precision);
  double value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return Value(value);
}

Value tojson(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonOptions options;
  options.max_bytes = evaluator.max_text_bytes();
  options.ascii = bound.get_or(0, Value(false)).truth();
  options.sort_keys = bound.get_or(3, Value(false)).truth();
  const Value width = bound.get_or(1, Value());
  if (width.is_string()) {
    options.indent = width.string();
  } else if (!width.is_none()) {
    const int64_t count = bound.integer_or(1, 0);
    require(count <= kMaxIndent, "tojson(): expected an indent of at most {}, found {}", kMaxIndent, count);
    options.indent = std::string(static_cast<size_t>(std::max<int64_t>(count, 0)), ' ');
  }
  if (options.indent) options.item_separator.pop_back();
  const Value separators = bound.get_or(2, Value());
  if (!separators.is_none()) {
    const std::vector<Value> parts = evaluator.items_of(separators);
    require(parts.size() == 2 && parts[0].is_string() && parts[1].is_string(),
            "tojson(): expected two separators");
    options.item_separator = parts[0].string();
    options.key_separator = parts[1].string();
  }
  std::string text = to_json(self, options);
  evaluator.charge_text(text.size());
  return Value(std::move(text));
}

Value attr(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string name = bound.string_or(0, "");
  // Attributes only: what a dictionary holds are items.
  if (self.is_dict() && find_dict_method(name) == nullptr)
    return Value::undefined("'dict object' has no attribute '" + printable(name) + "'");
  return evaluator.get_attribute(self, name);
}

/// safe and escape make Markup; it matters where texts are added up.
Value safe(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return Value(Markup{charged_text(evaluator, self)});
}

Value escape(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return escaped(evaluator, self);
}

Value force_escape(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  return escaped(evaluator, Value(charged_text(evaluator, self)));
}

Value format_filter(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  require(arguments.positional.empty() || arguments.named.empty(),
          "can't handle positional and keyword arguments at the same time");
  const Value format = self.is_string() ? self : Value(charged_text(evaluator, self));
  if (arguments.named.empty())
    return format_percent(evaluator, format, Value::sequence(arguments.positional, SequenceKind::kTuple));
  Dict named;
  for (const auto& [name, value] : arguments.named) named.set(Value(name), value);
  return format_percent(evaluator, format, Value(std::move(named)));
}

Value truncate(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.integer_or(0, 255);
  const std::string end = bound.string_or(2, "...");
  const bool default_leeway = bound.get(3) == nullptr || bound.get(3)->is_none();
  const int64_t leeway = default_leeway ? 5 : bound.integer_or(3, 5);
  const auto end_length = static_cast<int64_t>(char_count(end));
  require(length >= end_length, "expected length >= {}, got {}", end_length, length);
  require(leeway >= 0, "expected leeway >= 0, got {}", leeway);
  if (self.is_undefined()) return self;
  require(self.is_string(), "truncate(): expected a string, found {}", self.type_name());
  evaluator.charge(self.string().size());
  const std::vector<std::string_view> characters = chars(self.string());
  const auto size = static_cast<int64_t>(characters.size());
  if (size - leeway <= length) return self;
  std::string text;
  for (int64_t i = 0; i < length - end_length; ++i) text += characters[static_cast<size_t>(i)];
  if (!bound.get_or(1, Value(false)).truth()) text = text.substr(0, text.rfind(' '));
  return like(self, text + end);
}

Value center(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  const Arguments width{{Value(bound.integer_or(0, 80))}, {}};
  return find_string_method("center")(evaluator, Value(charged_text(evaluator, self)), width);
}

/// Runs of letters, numbers and underscores.
Value word_count(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const std::string text = charged_text(evaluator, self);
  int64_t count = 0;
  bool in_word = false;
  for (const std::string_view c : chars(text)) {
    const bool word =
        c == "_" || CharTable::get().has(decode_utf8(c).code_point, CharTable::kLetter | CharTable::kNumber);
    if (word && !in_word) ++count;
    in_word = word;
  }
  return Value(count);
}

constexpr std::pair<std::string_view, BuiltIn> kFilters[] = {
    {"safe", safe},
    {"escape", escape},
    {"e", escape},
    {"forceescape", force_escape},
    {"format", format_filter},
    {"truncate", truncate},
    {"center", center},
    {"wordcount", word_count},
    {"upper", mapped<upper>},
    {"lower", mapped<lower>},
    {"capitalize", mapped<capitalize>},
    {"title", mapped<title_filter>},
    {"string", mapped<identity>},
    {"trim", trim},
    {"replace", replace_filter},
    {"indent", indent},
    {"default", default_filter},
    {"d", default_filter},
    {"abs", abs_filter},
    {"int", int_filter},
    {"float", float_filter},
    {"round", round_filter},
    {"tojson", tojson},
    {"attr", attr},
};

}  // namespace

BuiltIn find_filter(std::string_view name) {
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return find_sequence_filter(name);
}

}  // namespace atom::text::jinja
