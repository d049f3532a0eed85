#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace atom::text::jinja {

/// Python's format specification, [[fill]align][sign][#][0][width][grouping][.precision][type].
struct FormatSpec {
  std::string fill = " ";
  char align = 0;   ///< < > ^ =, or 0: the default of the type
  char sign = '-';  ///< + - or space
  bool alternate = false;
  int64_t width = 0;
  char grouping = 0;  ///< , or _
  int64_t precision = -1;
  char type = 0;
};

/// Beyond which a width or precision is refused: a few digits must not make gigabytes.
inline constexpr int64_t kMaxFormatWidth = 1 << 20;

/// Throws Error for what is no specification.
FormatSpec parse_format_spec(std::string_view text);

/// Python's format(value, spec). Throws Error for types and specifications that do not fit.
std::string format_value(const Value& value, const FormatSpec& spec);

/// The same for the conversions e f g (and E F G) of the % operator and of format: the digits without a sign.
std::string float_digits(double magnitude, char type, int64_t precision, bool alternate);

/// Digits of an integer's magnitude in base 2, 8, 10 or 16.
std::string integer_digits(int64_t value, int base, bool upper);

/// Text in a field of `width` characters. '=' pads between the sign (`prefix`) and the rest.
std::string pad(std::string_view prefix, std::string_view text, const FormatSpec& spec, char default_align);

}  // namespace atom::text::jinja
