#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace atom {

// Parts of a Hugging Face tokenizer.json, for tokenizers that come in other files.

nlohmann::ordered_json byte_level_part(bool add_prefix_space, bool use_regex);

/// A pre-tokenizer that cuts the matches of a pattern (Oniguruma's dialect) out.
nlohmann::ordered_json split_part(std::string_view regex);

/// Pre-tokenizers one behind the other.
nlohmann::ordered_json pre_tokenizer_sequence(nlohmann::ordered_json::array_t parts);

nlohmann::ordered_json added_token(int64_t id, std::string_view content, bool special, bool normalized);

/// A post-processor that puts a token in front of and one behind every text; null without both.
struct FrameToken {
  std::string text;
  int64_t id;
};
nlohmann::ordered_json frame_part(const std::optional<FrameToken>& bos, const std::optional<FrameToken>& eos);

/// A token, and what makes it: tokens that BPE may join to others, or may come out of that.
struct RankedToken {
  std::string_view text;
  /// Of two tokens that could be made, the one of the lower rank is; less than 0: the token is none that is
  /// made, such as a single byte or character.
  int64_t rank;
};

/// Adds to `model` the merges of a BPE that goes by the rank of what a merge makes, whatever its parts are
/// (SentencePiece, tiktoken): the members `merges` and `merge_ranks` (Atom's own: the rank of each merge).
/// Each text of `tokens` comes once; no part begins inside a character. Throws Error naming `source` for
/// tokens that would take too long to take apart.
void add_ranked_merges(const std::vector<RankedToken>& tokens, std::string_view source,
                       nlohmann::ordered_json& model);

/// A document with a BPE model of which everything is off or missing.
nlohmann::ordered_json empty_tokenizer_document();

}  // namespace atom
