#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace atom {

/// GPT-2's alphabet (Radford et al. 2019): every byte is written as one printable character in vocabularies.
/// Printable Latin-1 bytes stand for themselves, the others for U+0100 onwards in order.
char32_t byte_to_char(uint8_t byte);

/// `text`, written in that alphabet, as bytes; nothing when it holds a character outside of the alphabet.
std::optional<std::string> byte_level_decode(std::string_view text);

/// `bytes` written in that alphabet.
std::string byte_level_encode(std::string_view bytes);

}  // namespace atom
