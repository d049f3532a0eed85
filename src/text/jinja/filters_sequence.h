#pragma once

#include <string_view>

#include "text/jinja/function.h"

namespace atom::text::jinja {

/// The filters that work on lists, dictionaries and whatever else has items; null for other names.
BuiltIn find_sequence_filter(std::string_view name);

}  // namespace atom::text::jinja
