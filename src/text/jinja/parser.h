#pragma once

#include <string>
#include <string_view>

#include "text/jinja/ast.h"

namespace atom::text::jinja {

/// Parses a template. Throws Error that names `name`, the line and what was found, also for constructs,
/// filters and tests that are not supported.
Body parse_template(std::string_view source, const std::string& name);

}  // namespace atom::text::jinja
