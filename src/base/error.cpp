#include "base/error.h"

#include "base/utf8.h"

namespace atom {

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  const size_t end = std::min(text.size(), limit);
  size_t i = 0;
  while (i < end) {
    const Utf8Char c = decode_utf8(text.substr(i));
    const bool control = c.code_point < 0x20 || (c.code_point >= 0x7F && c.code_point < 0xA0);
    if (c.valid && !control) {
      out.append(text.substr(i, c.length));
    } else {
      for (size_t k = 0; k < c.length; ++k) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + k]));
      }
    }
    i += c.length;
  }
  if (i < text.size()) out += "...";
  return out;
}

}  // namespace atom
