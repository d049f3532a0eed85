#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace atom {

/// Base64 (RFC 4648, section 4), with padding.
std::string encode_base64(std::string_view bytes);

/// Nothing when `text` is not base64: a character outside of the alphabet, a length or padding that does not
/// fit.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace atom
