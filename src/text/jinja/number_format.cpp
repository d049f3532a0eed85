#include "text/jinja/number_format.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/format.h"
#include "text/jinja/python_string.h"

namespace atom::text::jinja {
namespace {

bool is_align(char c) {
  return c == '<' || c == '>' || c == '^' || c == '=';
}

int64_t read_number(std::string_view& text, const char* what) {
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  require(result.ec == std::errc() && value <= kMaxFormatWidth, "expected a {} of at most {}, found '{}'",
          what, kMaxFormatWidth, printable(std::string(text), 40));
  text.remove_prefix(static_cast<size_t>(result.ptr - text.data()));
  return value;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Digits in groups of three (four for other bases than ten), counted from the point.
std::string grouped(std::string_view digits, char separator, size_t size) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % size == 0) out += separator;
    out += digits[i];
  }
  return out;
}

/// Grouped digits, with zeros in front until `width` is full.
std::string grouped_to_width(std::string digits, std::string_view rest, const FormatSpec& spec, size_t size,
                             size_t prefix) {
  const bool zeros = spec.fill == "0" && spec.align == '=';
  std::string out = grouped(digits, spec.grouping, size);
  while (zeros && static_cast<int64_t>(prefix + out.size() + rest.size()) < spec.width) {
    digits.insert(digits.begin(), '0');
    out = grouped(digits, spec.grouping, size);
  }
  return out;
}

std::string sign_text(bool negative, const FormatSpec& spec) {
  return negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

std::string format_integer(int64_t value, const FormatSpec& spec) {
  require(spec.precision < 0, "Precision not allowed in integer format specifier");
  if (spec.type == 'c') {
    require(spec.sign == '-' && !spec.alternate && spec.grouping == 0, "unexpected flag with format 'c'");
    require(value >= 0 && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF),
            "%c arg not in range(0x110000)");
    std::string text;
    append_utf8(text, static_cast<char32_t>(value));
    return pad("", text, spec, '<');
  }
  const int base = spec.type == 'b'                       ? 2
                   : spec.type == 'o'                     ? 8
                   : spec.type == 'x' || spec.type == 'X' ? 16
                                                          : 10;
  require(spec.grouping != ',' || base == 10, "Cannot specify ',' with '{}'.", spec.type);
  require(spec.grouping == 0 || spec.type != 'n', "Cannot specify '{}' with 'n'.", spec.grouping);
  std::string digits = integer_digits(value, base, spec.type == 'X');
  std::string prefix = sign_text(value < 0, spec);
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  if (spec.grouping != 0) digits = grouped_to_width(digits, "", spec, base == 10 ? 3 : 4, prefix.size());
  return pad(prefix, digits, spec, '>');
}

/// A float without a type: its shortest digits, or `precision` significant ones, but always with a point or
/// an exponent.
std::string plain_float(double magnitude, const FormatSpec& spec) {
  if (spec.precision < 0) return float_text(magnitude);
  const int64_t precision = std::max<int64_t>(spec.precision, 1);
  std::string text = float_digits(magnitude, 'g', precision, spec.alternate);
  const size_t e = text.find('e');
  if (e != std::string::npos) return text;
  // Python goes over to an exponent one digit earlier here, for the sake of the digit behind the point.
  if (text.find('.') == std::string::npos) {
    if (static_cast<int64_t>(text.size()) < precision) return text + ".0";
    text = float_digits(magnitude, 'e', precision - 1, false);
    // The digits of an exponent's form, without zeros at the end, as 'g' has them.
    const size_t at = text.find('e');
    std::string mantissa = text.substr(0, at);
    if (mantissa.find('.') != std::string::npos) {
      while (mantissa.back() == '0') mantissa.pop_back();
      if (mantissa.back() == '.') mantissa.pop_back();
    }
    return mantissa + text.substr(at);
  }
  return text;
}

std::string format_float(double value, const FormatSpec& spec) {
  const double magnitude = std::abs(value);
  const bool negative = std::signbit(value) && !std::isnan(value);
  std::string text;
  std::string rest;
  if (!std::isfinite(value)) {
    text = std::isnan(value) ? "nan" : "inf";
    if (spec.type == 'E' || spec.type == 'F' || spec.type == 'G') text = upper(text);
    if (spec.type == '%') text += '%';
    return pad(sign_text(negative, spec), text, spec, '>');
  }
  if (spec.type == 0) {
    text = plain_float(magnitude, spec);
  } else if (spec.type == '%') {
    text = float_digits(magnitude * 100, 'f', spec.precision, spec.alternate) + "%";
  } else {
    text = float_digits(magnitude, spec.type == 'n' ? 'g' : spec.type, spec.precision, spec.alternate);
  }
  if (spec.grouping != 0) {
    require(spec.type != 'n', "Cannot specify '{}' with 'n'.", spec.grouping);
    size_t end = 0;
    while (end < text.size() && is_digit(text[end])) ++end;
    rest = text.substr(end);
    const std::string prefix = sign_text(negative, spec);
    text = grouped_to_width(text.substr(0, end), rest, spec, 3, prefix.size()) + rest;
  }
  return pad(sign_text(negative, spec), text, spec, '>');
}

std::string format_text(const std::string& value, const FormatSpec& spec) {
  require(spec.type == 0 || spec.type == 's', "Unknown format code '{}' for object of type 'str'", spec.type);
  require(spec.sign == '-', "Sign not allowed in string format specifier");
  require(!spec.alternate, "Alternate form (#) not allowed in string format specifier");
  require(spec.grouping == 0, "Cannot specify '{}' with 's'.", spec.grouping);
  require(spec.align != '=', "'=' alignment not allowed in string format specifier");
  std::string_view text = value;
  if (spec.precision >= 0 && static_cast<int64_t>(text.size()) > spec.precision) {
    const std::vector<std::string_view> characters = chars(text);
    if (static_cast<int64_t>(characters.size()) > spec.precision) {
      const std::string_view after = characters[static_cast<size_t>(spec.precision)];
      text = text.substr(0, static_cast<size_t>(after.data() - text.data()));
    }
  }
  return pad("", text, spec, '<');
}

}  // namespace

FormatSpec parse_format_spec(std::string_view text) {
  FormatSpec spec;
  if (!text.empty()) {
    const size_t first = decode_utf8(text).length;
    if (first < text.size() && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      text.remove_prefix(first + 1);
    } else if (is_align(text[0])) {
      spec.align = text[0];
      text.remove_prefix(1);
    }
  }
  const auto at = [&](char c) { return !text.empty() && text[0] == c; };
  spec.sign = 0;
  if (at('+') || at('-') || at(' ')) {
    spec.sign = text[0];
    text.remove_prefix(1);
  }
  if (at('#')) {
    spec.alternate = true;
    text.remove_prefix(1);
  }
  if (at('0')) {
    if (spec.align == 0) {
      spec.fill = "0";
      spec.align = '0';  // '=' for numbers, '<' for texts
    }
    text.remove_prefix(1);
  }
  if (!text.empty() && is_digit(text[0])) spec.width = read_number(text, "width");
  if (at(',') || at('_')) {
    spec.grouping = text[0];
    text.remove_prefix(1);
  }
  if (at('.')) {
    text.remove_prefix(1);
    require(!text.empty() && is_digit(text[0]), "Format specifier missing precision");
    spec.precision = read_number(text, "precision");
  }
  if (!text.empty()) {
    spec.type = text[0];
    text.remove_prefix(1);
  }
  require(text.empty(), "Invalid format specifier");
  return spec;
}

std::string format_value(const Value& value, const FormatSpec& given) {
  FormatSpec spec = given;
  const bool explicit_sign = spec.sign != 0;
  if (!explicit_sign) spec.sign = '-';
  if (spec.align == '0') spec.align = value.is_string() ? 0 : '=';
  if (value.is_string()) {
    require(!explicit_sign, "Sign not allowed in string format specifier");
    return format_text(value.string(), spec);
  }
  require(value.is_number(), "unsupported format string passed to {}.__format__", value.type_name());
  const std::string_view integers = "bcdoxXn";
  const std::string_view floats = "eEfFgGn%";
  const bool as_integer =
      !value.is_float() && (spec.type == 0 || integers.find(spec.type) != std::string::npos);
  if (as_integer) return format_integer(value.integer(), spec);
  require(spec.type == 0 || floats.find(spec.type) != std::string::npos,
          "Unknown format code '{}' for object of type '{}'", printable(std::string(1, spec.type)),
          value.type_name());
  return format_float(value.number(), spec);
}

std::string float_digits(double magnitude, char type, int64_t precision, bool alternate) {
  const bool upper_case = type == 'E' || type == 'F' || type == 'G';
  const char kind = static_cast<char>(type | 0x20);
  if (precision < 0) precision = 6;
  if (kind == 'g' && precision == 0) precision = 1;
  std::string text;
  if (!std::isfinite(magnitude)) {
    text = std::isnan(magnitude) ? "nan" : "inf";
  } else {
    // # keeps zeros and the point, in C as in Python.
    const std::string form = std::string(alternate ? "{:#.{}" : "{:.{}") + kind + "}";
    text = fmt::format(fmt::runtime(form), magnitude, precision);
  }
  return upper_case ? upper(text) : text;
}

std::string integer_digits(int64_t value, int base, bool upper_case) {
  const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  char buffer[65];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base).ptr;
  const std::string text(buffer, end);
  return upper_case ? upper(text) : text;
}

std::string pad(std::string_view prefix, std::string_view text, const FormatSpec& spec, char default_align) {
  const char align = spec.align == 0 ? default_align : spec.align;
  const auto length = static_cast<int64_t>(char_count(prefix) + char_count(text));
  const int64_t missing = std::max<int64_t>(spec.width - length, 0);
  const int64_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  const auto fill = [&](int64_t count) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  std::string out;
  if (align != '=') out = fill(left);
  out += prefix;
  if (align == '=') out += fill(left);
  out += text;
  return out + fill(missing - left);
}

}  // namespace atom::text::jinja
