#include "base/byte_level.h"

#include "base/utf8.h"

namespace atom {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<int16_t, 0x200> bytes{};

  constexpr Alphabet() {
    for (int16_t& byte : bytes) byte = -1;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      chars[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      bytes[chars[byte]] = static_cast<int16_t>(byte);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_to_char(uint8_t byte) {
  return kAlphabet.chars[byte];
}

std::optional<std::string> byte_level_decode(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!c.valid || c.code_point >= kAlphabet.bytes.size() || kAlphabet.bytes[c.code_point] < 0)
      return std::nullopt;
    out += static_cast<char>(kAlphabet.bytes[c.code_point]);
    text.remove_prefix(c.length);
  }
  return out;
}

std::string byte_level_encode(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(byte)));
  return out;
}

}  // namespace atom
