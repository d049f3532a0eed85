#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

namespace atom {

/// A tokenizer of Mistral's tekken.json (byte-level BPE that goes by the rank of what a merge makes, as
/// tiktoken does) as a Hugging Face tokenizer.json. The special tokens come first: the file's own, or those
/// that every file without any has, then "<SPECIAL_n>"; "<s>" goes in front of every text. Throws Error
/// naming `source` and the field for what is malformed.
nlohmann::ordered_json make_tekken_tokenizer(const nlohmann::ordered_json& tekken, std::string_view source);

}  // namespace atom
