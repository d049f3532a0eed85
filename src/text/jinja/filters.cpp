#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/filters_sequence.h"
#include "text/jinja/format.h"
#include "text/jinja/function.h"
#include "text/jinja/python_string.h"

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
  return Value(change(charged_text(evaluator, self)));
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
  return strip(evaluator, Value(charged_text(evaluator, self)), arguments);
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
  return Value(std::move(out));
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
  require(std::abs(value) < 9.2e18, "cannot convert this float to a 64-bit integer");
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

Value round_filter(Evaluator&, const Value& self, const Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer_or(0, 0);
  const std::string method = bound.string_or(1, "common");
  refuse_undefined(self);
  require(self.is_number(), "round(): expected a number, found {}", self.type_name());
  require(precision >= 0 && precision <= 15, "round(): expected a precision from 0 to 15, found {}",
          precision);
  require(method == "common" || method == "ceil" || method == "floor",
          "method must be common, ceil or floor");
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = self.number() * scale;
    return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
  }
  if (!self.is_float()) return Value(self.integer());
  if (!std::isfinite(self.number())) return self;
  const std::string digits = fmt::format("{:.{}f}", self.number(), precision);
  double value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return Value(value);
}

Value tojson(Evaluator& evaluator, const Value& self, const Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonOptions options;
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
  if (options.indent) options.item_separator = ",";
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

constexpr std::pair<std::string_view, BuiltIn> kFilters[] = {
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
