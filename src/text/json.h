#pragma once

#include <cstddef>
#include <string_view>

#include <nlohmann/json.hpp>

namespace atom::text {

/// Arrays and objects inside one another, beyond which a document is refused: code that walks a document
/// recursively (nlohmann's own dump and compare among it) must not run out of stack.
inline constexpr size_t kMaxJsonDepth = 200;
inline constexpr size_t kMaxJsonBytes = size_t{512} << 20;

/// Parses one JSON document. Throws Error naming `source` for syntax errors, invalid UTF-8, text behind the
/// document, nesting beyond kMaxJsonDepth and more than kMaxJsonBytes.
nlohmann::json parse_json(std::string_view text, std::string_view source);

/// The same; objects keep their order.
nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view source);

}  // namespace atom::text
