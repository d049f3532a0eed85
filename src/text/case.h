#pragma once

#include <string>
#include <string_view>

namespace atom::text {

enum class Case { kUpper, kLower };

/// `text` in upper or lower case: Unicode's simple mappings, and of the special ones the sharp s, the Latin
/// ligatures, the dotted capital I and the final sigma.
std::string change_case(std::string_view text, Case to);

}  // namespace atom::text
