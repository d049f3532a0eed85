#include "text/json.h"

#include "base/error.h"

namespace atom::text {
namespace {

/// Throws when brackets outside of strings nest too deeply. Whether they match is the parser's business.
void check_depth(std::string_view text, std::string_view source) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++depth;
      require(depth <= kMaxJsonDepth, "{}: JSON nested deeper than {} levels at byte {}", source,
              kMaxJsonDepth, i);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
}

template <class Json>
Json parse(std::string_view text, std::string_view source) {
  require(text.size() <= kMaxJsonBytes, "{}: expected JSON of at most {} bytes, found {}", source,
          kMaxJsonBytes, text.size());
  check_depth(text, source);
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not valid JSON: {}", source, printable(error.what(), 200));
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string_view source) {
  return parse<nlohmann::json>(text, source);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, std::string_view source) {
  return parse<nlohmann::ordered_json>(text, source);
}

}  // namespace atom::text
