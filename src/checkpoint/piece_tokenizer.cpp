#include "checkpoint/piece_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/base64.h"
#include "base/error.h"
#include "checkpoint/json.h"
#include "checkpoint/tokenizer_document.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

constexpr const char* kMark = "\xE2\x96\x81";

bool is_mergeable(PieceType type) {
  return type == PieceType::normal || type == PieceType::unused;
}

bool is_one_character(std::string_view text) {
  return !text.empty() && decode_utf8(text).length == text.size();
}

ordered_json make_vocab(const PieceModel& model) {
  ordered_json::object_t vocab;
  vocab.reserve(model.pieces.size());
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const std::string& text = model.pieces[id].text;
    require(is_valid_utf8(text), "{}: token {} is not valid UTF-8", model.source, id);
    const auto [it, is_new] = ids.emplace(text, id);
    require(is_new, "{}: tokens {} and {} are both \"{}\"", model.source, it->second, id, printable(text));
    append_member(vocab, text, id);
  }
  return ordered_json(std::move(vocab));
}

/// Ranks by falling score; equal scores are one rank.
std::vector<RankedToken> rank_pieces(const PieceModel& model) {
  std::vector<float> scores;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    require(!std::isnan(piece.score), "{}: the score of token {} is not a number", model.source, id);
    if (is_mergeable(piece.type) && !is_one_character(piece.text)) scores.push_back(piece.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<RankedToken> tokens;
  for (const Piece& piece : model.pieces) {
    if (!is_mergeable(piece.type) || piece.text.empty()) continue;
    const auto place = std::lower_bound(scores.begin(), scores.end(), piece.score, std::greater<>());
    tokens.push_back({piece.text, is_one_character(piece.text) ? -1 : place - scores.begin()});
  }
  return tokens;
}

/// A table that replaces nothing, in the format of SentencePiece's: a trie whose root is not among its own
/// children, so that no text finds a way in it, and no replacements.
std::string empty_charsmap() {
  std::vector<uint32_t> words(1 + 512, uint32_t{1} << 31);
  words[0] = 512 * sizeof(uint32_t);
  words[1] = 256 << 10;
  return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint32_t)};
}

ordered_json make_normalizer(const PieceModel& model, ordered_json::array_t user_defined) {
  const bool has_user_defined = !user_defined.empty();

  ordered_json::array_t steps;
  const auto replace = [&](const char* kind, const char* pattern, const char* content) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}});
  };
  // Without a table and with all spaces there is nothing to keep anything from.
  const bool keeps = model.keeps_user_defined && has_user_defined && model.remove_extra_whitespaces;
  if (!model.charsmap.empty() || keeps) {
    ordered_json table{
        {"type", "Precompiled"},
        {"precompiled_charsmap", encode_base64(model.charsmap.empty() ? empty_charsmap() : model.charsmap)},
        {"search", "longest"}};
    if (model.keeps_user_defined && has_user_defined) {
      table["kept"] = ordered_json(std::move(user_defined));
      table["remove_extra_spaces"] = model.remove_extra_whitespaces;
    }
    steps.push_back(std::move(table));
  }
  if (model.remove_extra_whitespaces) {
    replace("Regex", R"(\A +)", "");
    replace("Regex", " {2,}", " ");
  }
  if (model.add_dummy_prefix) {
    ordered_json prepend{{"type", "Prepend"}, {"prepend", kMark}};
    // `tokenizers` knows one way only, that of a model without user-defined pieces, and of texts of which
    // something is left.
    if (!model.prefix_behind_special || has_user_defined || !model.charsmap.empty())
      prepend["prepend_scheme"] = model.prefix_behind_special ? "always" : "first";
    steps.push_back(std::move(prepend));
  }
  if (model.remove_extra_whitespaces) replace("Regex", R"([ ▁]+\z)", "");
  replace("String", " ", kMark);
  return {{"type", "Sequence"}, {"normalizers", ordered_json(std::move(steps))}};
}

ordered_json make_decoder(const PieceModel& model, const std::string& unknown) {
  ordered_json::array_t steps;
  const auto replace = [&](const std::string& pattern, const std::string& content) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}});
  };
  if (!unknown.empty() && !model.unknown_surface.empty() && unknown != model.unknown_surface)
    replace(unknown, model.unknown_surface);
  replace(kMark, " ");
  if (model.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  // A model that removes extra white space does so in what it decodes, too.
  const int most = model.remove_extra_whitespaces ? 1024 : model.add_dummy_prefix ? 1 : 0;
  if (most > 0) {
    ordered_json strip{{"type", "Strip"}, {"content", " "}, {"start", most}, {"stop", 0}};
    if (model.keeps_user_defined) strip["search"] = "marks";
    steps.push_back(std::move(strip));
  }
  return {{"type", "Sequence"}, {"decoders", ordered_json(std::move(steps))}};
}

}  // namespace

ordered_json make_piece_tokenizer(const PieceModel& model) {
  ordered_json document = empty_tokenizer_document();
  ordered_json& bpe = document["model"];
  ordered_json& added = document["added_tokens"];
  std::string unknown;
  ordered_json::array_t user_defined;
  ordered_json::array_t unused;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type == PieceType::unknown) unknown = piece.text;
    if (piece.type == PieceType::unused && !is_one_character(piece.text)) unused.emplace_back(id);
    const bool special = piece.type == PieceType::unknown || piece.type == PieceType::control;
    if (!special && piece.type != PieceType::user_defined) continue;
    require(!piece.text.empty(), "{}: special token {} is empty", model.source, id);
    const bool normalized = !special && !model.keeps_user_defined;
    added.push_back(added_token(static_cast<int64_t>(id), piece.text, special, normalized));
    if (special) continue;
    user_defined.emplace_back(piece.text);
    if (model.keeps_user_defined) added.back()["search"] = "normalized";
  }
  document["normalizer"] = make_normalizer(model, std::move(user_defined));
  document["decoder"] = make_decoder(model, unknown);
  if (!unknown.empty()) bpe["unk_token"] = unknown;
  bpe["fuse_unk"] = true;
  bpe["byte_fallback"] = model.byte_fallback;
  bpe["vocab"] = make_vocab(model);
  add_ranked_merges(rank_pieces(model), model.source, bpe);
  if (!unused.empty()) bpe["unused_tokens"] = ordered_json(std::move(unused));
  return document;
}

}  // namespace atom
