#pragma once

#include <string_view>

#include "text/jinja/function.h"

namespace atom::text::jinja {

/// Methods of str that search in a text, ask what it consists of, or lay it out in a field.
BuiltIn find_more_string_methods(std::string_view name);

}  // namespace atom::text::jinja
