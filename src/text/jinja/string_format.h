#pragma once

#include <string>

#include "text/jinja/function.h"
#include "text/jinja/value.h"

namespace atom::text::jinja {

/// Python's `format % argument`.
Value format_percent(Evaluator& evaluator, const Value& format, const Value& argument);

/// Python's format.format(arguments), as Jinja's sandbox does it: a field that leads nowhere is undefined.
Value format_braces(Evaluator& evaluator, const Value& format, const Arguments& arguments);

}  // namespace atom::text::jinja
