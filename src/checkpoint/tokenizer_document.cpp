#include "checkpoint/tokenizer_document.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

// All parts of a token are looked up: a cost of the square of its length.
constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxTotalSquares = size_t{1} << 31;

struct Merge {
  std::string_view left;
  std::string_view right;
  int64_t rank;
};

bool is_inside_character(char c) {
  return (static_cast<uint8_t>(c) & 0xC0) == 0x80;
}

}  // namespace

ordered_json byte_level_part(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json split_part(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

ordered_json pre_tokenizer_sequence(ordered_json::array_t parts) {
  return {{"type", "Sequence"}, {"pretokenizers", ordered_json(std::move(parts))}};
}

ordered_json added_token(int64_t id, std::string_view content, bool special, bool normalized) {
  return {{"id", id},        {"content", content},       {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", special}};
}

ordered_json frame_part(const std::optional<FrameToken>& bos, const std::optional<FrameToken>& eos) {
  if (!bos && !eos) return nullptr;
  ordered_json::array_t single;
  ordered_json::array_t second;
  ordered_json special = ordered_json::object();
  const auto add = [&](const std::optional<FrameToken>& token) {
    if (!token) return;
    single.push_back({{"SpecialToken", {{"id", token->text}, {"type_id", 0}}}});
    second.push_back({{"SpecialToken", {{"id", token->text}, {"type_id", 1}}}});
    special[token->text] = {{"id", token->text}, {"ids", {token->id}}, {"tokens", {token->text}}};
  };
  add(bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  second.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  add(eos);
  ordered_json::array_t pair = single;
  pair.insert(pair.end(), second.begin(), second.end());
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json(std::move(single))},
          {"pair", ordered_json(std::move(pair))},
          {"special_tokens", std::move(special)}};
}

void add_ranked_merges(const std::vector<RankedToken>& tokens, std::string_view source, ordered_json& model) {
  std::unordered_set<std::string_view> known;
  known.reserve(tokens.size());
  for (const RankedToken& token : tokens) known.insert(token.text);

  std::vector<Merge> merges;
  size_t squares = 0;
  for (const RankedToken& token : tokens) {
    if (token.rank < 0) continue;
    squares += token.text.size() * token.text.size();
    require(token.text.size() <= kMaxTokenBytes && squares <= kMaxTotalSquares,
            "{}: expected tokens of at most {} bytes, found \"{}\"", source, kMaxTokenBytes,
            printable(token.text, 40));
    for (size_t cut = 1; cut < token.text.size(); ++cut) {
      if (is_inside_character(token.text[cut])) continue;
      const auto left = known.find(token.text.substr(0, cut));
      if (left == known.end()) continue;
      const auto right = known.find(token.text.substr(cut));
      if (right == known.end()) continue;
      merges.push_back({*left, *right, token.rank});
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.rank < b.rank; });

  // "left right" is what every reader takes, where no token has a space itself.
  const bool as_text = std::none_of(merges.begin(), merges.end(), [](const Merge& merge) {
    return merge.left.find(' ') != std::string_view::npos ||
           merge.right.find(' ') != std::string_view::npos || merge.left.starts_with("#version");
  });
  ordered_json::array_t list;
  ordered_json::array_t rank_list;
  list.reserve(merges.size());
  std::string joined;
  int64_t number = -1;
  int64_t last = -1;
  for (const Merge& merge : merges) {
    if (as_text) {
      joined.assign(merge.left).append(" ").append(merge.right);
      list.emplace_back(joined);
    } else {
      list.push_back({merge.left, merge.right});
    }
    if (merge.rank != last) ++number;
    last = merge.rank;
    rank_list.emplace_back(static_cast<uint64_t>(number));
  }
  model["merges"] = ordered_json(std::move(list));
  model["merge_ranks"] = ordered_json(std::move(rank_list));
}

ordered_json empty_tokenizer_document() {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", ordered_json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", ordered_json::object()},
            {"merges", ordered_json::array()}}}};
}

}  // namespace atom
