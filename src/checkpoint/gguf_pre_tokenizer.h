#pragma once

#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

namespace atom {

/// What a value of tokenizer.ggml.pre stands for in a Hugging Face tokenizer.json.
struct GgufPreTokenizer {
  nlohmann::ordered_json pre_tokenizer;
  bool normalizes = false;     ///< to NFC first
  bool ignore_merges = false;  ///< words that are tokens stay whole
  bool adds_bos = false;       ///< where the file does not say
};

/// Nothing for a name that is not known.
std::optional<GgufPreTokenizer> find_pre_tokenizer(std::string_view name, bool add_prefix_space);

}  // namespace atom
