#include "text/decoder.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/byte_level.h"
#include "base/utf8.h"

namespace atom::text {
namespace {

// No token that anyone needs grows beyond this.
constexpr size_t kMaxTokenBytes = size_t{1} << 20;

std::string apply_step(const ReplaceStep& step, const std::string& token, bool) {
  return replace_all(step, token, kMaxTokenBytes);
}
std::string apply_step(const StripCharacters& step, const std::string& token, bool) {
  return step.apply(token);
}
std::string apply_step(const MarkToSpace& step, const std::string& token, bool first) {
  return replace_all({step.mark, nullptr, first && step.drop_first ? "" : " "}, token, kMaxTokenBytes);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string StripCharacters::apply(std::string_view text) const {
  for (size_t i = 0; i < start && text.starts_with(content); ++i) text.remove_prefix(content.size());
  for (size_t i = 0; i < stop && text.ends_with(content); ++i) text.remove_suffix(content.size());
  return std::string(text);
}

std::string TokenDecoder::apply(std::string_view token, bool first) const {
  std::string text(token);
  for (const auto& step : steps) {
    text = std::visit([&](const auto& kind) { return apply_step(kind, text, first); }, step);
  }
  return byte_level ? byte_level_decode(text).value_or(text) : text;
}

bool TokenDecoder::first_differs() const {
  return std::any_of(steps.begin(), steps.end(), [](const auto& step) {
    const auto* mark = std::get_if<MarkToSpace>(&step);
    return mark != nullptr && mark->drop_first;
  });
}

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]);
  const int low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string fallback_token(uint8_t byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace atom::text
