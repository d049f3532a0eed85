#pragma once

#include <filesystem>
#include <optional>

#include <nlohmann/json.hpp>

namespace atom {

/// The tokenizer of a Hugging Face directory that has no tokenizer.json, as one: from tekken.json, or from a
/// SentencePiece model (tokenizer.model, or the only file whose name has ".model" in it). Added tokens come
/// from tokenizer_config.json and added_tokens.json beside it. Nothing when there is no such file. `config`
/// is the directory's tokenizer_config.json, or an empty object; bos_token, eos_token and the like are added
/// to it where it lacks them.
std::optional<nlohmann::ordered_json> read_directory_tokenizer(const std::filesystem::path& directory,
                                                               nlohmann::ordered_json& config);

/// Adds the special tokens of special_tokens_map.json to `config` where it lacks them.
void add_special_tokens_map(const std::filesystem::path& directory, nlohmann::ordered_json& config);

}  // namespace atom
