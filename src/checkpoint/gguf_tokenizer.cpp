#include "checkpoint/gguf_tokenizer.h"

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "checkpoint/gguf_pre_tokenizer.h"
#include "checkpoint/json.h"
#include "checkpoint/piece_tokenizer.h"
#include "checkpoint/tokenizer_document.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTokenTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kPre = "tokenizer.ggml.pre";

constexpr const char* kScores = "tokenizer.ggml.scores";

/// What comes out of the two kinds of tokenizers that are read: "gpt2" (byte-level BPE), "llama"
/// (SentencePiece).
bool is_pieces(const GgufFile& file) {
  const std::string_view kind = file.get_string("tokenizer.ggml.model");
  require(
      kind == "gpt2" || kind == "llama",
      "{}: tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE) or \"llama\" (SentencePiece BPE), found "
      "\"{}\", which is not supported",
      file.name(), printable(kind));
  return kind == "llama";
}

GgufPreTokenizer get_pre_tokenizer(const GgufFile& file) {
  const std::string_view name = file.get_string(kPre);
  auto found = find_pre_tokenizer(name, file.find_bool("tokenizer.ggml.add_space_prefix").value_or(false));
  require(found.has_value(), "{}: {}: found \"{}\", which is not supported", file.name(), kPre,
          printable(name));
  return std::move(*found);
}

struct Tokens {
  std::vector<std::string_view> text;
  std::unordered_map<std::string_view, uint64_t> ids;
};

Tokens read_tokens(const GgufFile& file) {
  Tokens tokens;
  const uint64_t count = file.count_strings(kTokens);
  require(count >= 1 && count <= std::numeric_limits<int32_t>::max(),
          "{}: {}: expected 1 to 2^31 - 1 tokens, found {}", file.name(), kTokens, count);
  tokens.text.reserve(count);
  tokens.ids.reserve(count);
  file.for_each_string(kTokens, [&](uint64_t id, std::string_view text) {
    require(is_valid_utf8(text), "{}: {}: token {} is not valid UTF-8", file.name(), kTokens, id);
    const auto [it, inserted] = tokens.ids.emplace(text, id);
    require(inserted, "{}: {}: tokens {} and {} are both \"{}\"", file.name(), kTokens, it->second, id,
            printable(text));
    tokens.text.push_back(text);
  });
  return tokens;
}

ordered_json make_vocab(const Tokens& tokens) {
  ordered_json::object_t vocab;
  vocab.reserve(tokens.text.size());
  for (uint64_t id = 0; id < tokens.text.size(); ++id) append_member(vocab, std::string(tokens.text[id]), id);
  return ordered_json(std::move(vocab));
}

ordered_json make_merges(const GgufFile& file, const Tokens& tokens) {
  ordered_json::array_t merges;
  merges.reserve(file.count_strings(kMerges));
  std::string joined;
  file.for_each_string(kMerges, [&](uint64_t rank, std::string_view merge) {
    const size_t space = merge.find(' ');
    require(space != std::string_view::npos && merge.find(' ', space + 1) == std::string_view::npos,
            "{}: {}: expected merge {} to be two tokens with a space between, found \"{}\"", file.name(),
            kMerges, rank, printable(merge));
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    joined.assign(left);
    joined += right;
    for (const std::string_view part : {left, right, std::string_view(joined)}) {
      require(tokens.ids.count(part) != 0,
              "{}: {}: merge {} (\"{}\") needs the token \"{}\", which does not exist", file.name(), kMerges,
              rank, printable(merge), printable(part));
    }
    merges.emplace_back(std::string(merge));
  });
  return ordered_json(std::move(merges));
}

ordered_json make_added_tokens(const GgufFile& file, const Tokens& tokens) {
  ordered_json::array_t added;
  const GgufValue* types = file.find(kTokenTypes);
  if (types == nullptr) return ordered_json(std::move(added));
  require(types->count == tokens.text.size(), "{}: {}: expected {} entries, one a token, found {}",
          file.name(), kTokenTypes, tokens.text.size(), types->count);
  const std::vector<int64_t> type = file.get_ints(kTokenTypes);
  constexpr auto unknown = static_cast<int64_t>(PieceType::unknown);
  constexpr auto control = static_cast<int64_t>(PieceType::control);
  constexpr auto user_defined = static_cast<int64_t>(PieceType::user_defined);
  for (size_t id = 0; id < type.size(); ++id) {
    if (type[id] != unknown && type[id] != control && type[id] != user_defined) continue;
    require(!tokens.text[id].empty(), "{}: {}: special token {} is empty", file.name(), kTokens, id);
    added.push_back(added_token(static_cast<int64_t>(id), tokens.text[id], type[id] != user_defined, false));
  }
  return ordered_json(std::move(added));
}

/// The token that a key names, or the id that llama.cpp takes for it in files of SentencePiece models.
std::optional<FrameToken> find_token(const GgufFile& file, const Tokens& tokens, const char* key,
                                     std::optional<uint64_t> fallback = std::nullopt) {
  auto id = file.find_uint(key);
  if (!id && fallback && *fallback < tokens.text.size()) id = fallback;
  if (!id) return std::nullopt;
  require(*id < tokens.text.size(), "{}: {}: expected an id below {}, found {}", file.name(), key,
          tokens.text.size(), *id);
  return FrameToken{std::string(tokens.text[static_cast<size_t>(*id)]), static_cast<int64_t>(*id)};
}

struct SpecialTokens {
  std::optional<FrameToken> bos;
  std::optional<FrameToken> eos;
  std::optional<FrameToken> unknown;
  bool adds_bos;
  bool adds_eos;
};

SpecialTokens find_special_tokens(const GgufFile& file, const Tokens& tokens) {
  const bool pieces = is_pieces(file);
  const auto fallback = [&](uint64_t id) { return pieces ? std::optional(id) : std::nullopt; };
  SpecialTokens out;
  out.bos = find_token(file, tokens, "tokenizer.ggml.bos_token_id", fallback(1));
  out.eos = find_token(file, tokens, "tokenizer.ggml.eos_token_id", fallback(2));
  out.unknown = find_token(file, tokens, "tokenizer.ggml.unknown_token_id", fallback(0));
  const auto adds_bos = file.find_bool("tokenizer.ggml.add_bos_token");
  out.adds_bos = adds_bos ? *adds_bos : pieces || get_pre_tokenizer(file).adds_bos;
  out.adds_eos = file.find_bool("tokenizer.ggml.add_eos_token").value_or(false);
  return out;
}

/// Puts the beginning-of-sequence token in front, and the end-of-sequence token behind, of every text.
ordered_json make_post_processor(const GgufFile& file, const SpecialTokens& special) {
  const auto check = [&](bool wanted, const std::optional<FrameToken>& token, const char* key) {
    require(!wanted || token.has_value(),
            "{}: metadata key \"{}\" is missing, but the tokenizer adds that token", file.name(), key);
  };
  check(special.adds_bos, special.bos, "tokenizer.ggml.bos_token_id");
  check(special.adds_eos, special.eos, "tokenizer.ggml.eos_token_id");
  return frame_part(special.adds_bos ? special.bos : std::nullopt,
                    special.adds_eos ? special.eos : std::nullopt);
}

/// A byte-level BPE.
ordered_json make_byte_level_json(const GgufFile& file, const Tokens& tokens) {
  GgufPreTokenizer pre = get_pre_tokenizer(file);
  ordered_json document = empty_tokenizer_document();
  document["added_tokens"] = make_added_tokens(file, tokens);
  if (pre.normalizes) document["normalizer"] = {{"type", "NFC"}};
  document["pre_tokenizer"] = std::move(pre.pre_tokenizer);
  document["decoder"] = byte_level_part(true, true);
  // A byte without a token is dropped, as Hugging Face does, not replaced.
  ordered_json& model = document["model"];
  model["ignore_merges"] = pre.ignore_merges;
  model["vocab"] = make_vocab(tokens);
  model["merges"] = make_merges(file, tokens);
  return document;
}

/// `count` numbers of 32-bit floating point.
std::vector<float> get_scores(const GgufFile& file, size_t count) {
  const GgufValue* value = file.find(kScores);
  require(value != nullptr, "{}: metadata key \"{}\" is missing", file.name(), kScores);
  require(value->type == GgufType::array && value->element == GgufType::f32 && value->count == count,
          "{}: {}: expected an array of {} numbers of type F32, one a token", file.name(), kScores, count);
  std::vector<float> scores(count);
  std::memcpy(scores.data(), value->bytes.data(), count * sizeof(float));
  return scores;
}

/// A SentencePiece model.
ordered_json make_piece_json(const GgufFile& file, const Tokens& tokens) {
  PieceModel model;
  model.source = fmt::format("{}: {}", file.name(), kTokens);
  model.add_dummy_prefix = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  model.remove_extra_whitespaces = file.find_bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
  model.byte_fallback = true;
  const char* charsmap = "tokenizer.ggml.precompiled_charsmap";
  require(file.find(charsmap) == nullptr, "{}: {}: found, but it is not supported", file.name(), charsmap);
  const std::vector<float> scores = get_scores(file, tokens.text.size());
  const std::vector<int64_t> types = file.get_ints(kTokenTypes);
  require(types.size() == tokens.text.size(), "{}: {}: expected {} entries, one a token, found {}",
          file.name(), kTokenTypes, tokens.text.size(), types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    require(types[id] >= 1 && types[id] <= 6, "{}: {}: expected types from 1 to 6, found {} for token {}",
            file.name(), kTokenTypes, types[id], id);
    model.pieces.push_back({std::string(tokens.text[id]), scores[id], static_cast<PieceType>(types[id])});
  }
  if (const auto unknown = find_special_tokens(file, tokens).unknown)
    model.pieces[static_cast<size_t>(unknown->id)].type = PieceType::unknown;
  return make_piece_tokenizer(model);
}

}  // namespace

ordered_json make_tokenizer_json(const GgufFile& file) {
  const bool pieces = is_pieces(file);
  if (!pieces) get_pre_tokenizer(file);  // before what takes long
  const Tokens tokens = read_tokens(file);
  ordered_json document = pieces ? make_piece_json(file, tokens) : make_byte_level_json(file, tokens);
  document["post_processor"] = make_post_processor(file, find_special_tokens(file, tokens));
  return document;
}

ordered_json make_tokenizer_config(const GgufFile& file) {
  const Tokens tokens = read_tokens(file);
  const SpecialTokens special = find_special_tokens(file, tokens);
  ordered_json config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["add_bos_token"] = special.adds_bos;
  config["add_prefix_space"] = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(is_pieces(file));
  config["clean_up_tokenization_spaces"] = false;
  const auto add_token = [&](const char* field, const std::optional<FrameToken>& token) {
    if (token) config[field] = token->text;
  };
  add_token("bos_token", special.bos);
  add_token("eos_token", special.eos);
  add_token("unk_token", special.unknown);
  add_token("pad_token", find_token(file, tokens, "tokenizer.ggml.padding_token_id"));
  if (const auto context = file.find_uint("llama.context_length")) config["model_max_length"] = *context;
  if (const auto chat_template = file.find_string("tokenizer.chat_template"))
    config["chat_template"] = *chat_template;
  return config;
}

}  // namespace atom
