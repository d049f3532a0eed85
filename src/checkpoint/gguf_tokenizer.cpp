#include "checkpoint/gguf_tokenizer.h"

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTokenTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kPre = "tokenizer.ggml.pre";

/// Values of tokenizer.ggml.token_type that matter here.
enum TokenType : int64_t { kUnknown = 2, kControl = 3, kUserDefined = 4 };

ordered_json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json split(const char* regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

ordered_json sequence(ordered_json::array_t parts) {
  return {{"type", "Sequence"}, {"pretokenizers", ordered_json(std::move(parts))}};
}

constexpr const char* kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_llama3(std::string_view pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
}

ordered_json make_pre_tokenizer(const GgufFile& file, std::string_view pre) {
  const bool space = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(false);
  if (pre == "smollm") {
    return sequence({{{"type", "Digits"}, {"individual_digits", true}}, byte_level(space, true)});
  }
  if (pre == "gpt-2") return byte_level(space, true);
  if (pre == "default") {
    return sequence({split(R"([\p{P}\$\+<=>\^~\|]+)"), split(kGpt2Regex), split(R"(\p{N}+)"),
                     split("[0-9][0-9][0-9]"), byte_level(space, false)});
  }
  if (is_llama3(pre)) return sequence({split(kLlama3Regex), byte_level(space, false)});
  fail(
      "{}: {}: expected \"smollm\", \"gpt-2\", \"default\" or \"llama-bpe\", found \"{}\", which is not "
      "supported",
      file.name(), kPre, printable(pre));
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
  for (size_t id = 0; id < type.size(); ++id) {
    if (type[id] != kUnknown && type[id] != kControl && type[id] != kUserDefined) continue;
    require(!tokens.text[id].empty(), "{}: {}: special token {} is empty", file.name(), kTokens, id);
    added.push_back({{"id", id},
                     {"content", tokens.text[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type[id] != kUserDefined}});
  }
  return ordered_json(std::move(added));
}

std::optional<std::string_view> find_token(const GgufFile& file, const Tokens& tokens, const char* key) {
  const auto id = file.find_uint(key);
  if (!id) return std::nullopt;
  require(*id < tokens.text.size(), "{}: {}: expected an id below {}, found {}", file.name(), key,
          tokens.text.size(), *id);
  return tokens.text[static_cast<size_t>(*id)];
}

bool adds_bos(const GgufFile& file) {
  const bool fallback = is_llama3(file.find_string(kPre).value_or(""));
  return file.find_bool("tokenizer.ggml.add_bos_token").value_or(fallback);
}

/// Puts the beginning-of-sequence token in front, and the end-of-sequence token behind, of every text.
ordered_json make_post_processor(const GgufFile& file, const Tokens& tokens) {
  const bool bos = adds_bos(file);
  const bool eos = file.find_bool("tokenizer.ggml.add_eos_token").value_or(false);
  if (!bos && !eos) return nullptr;
  ordered_json::array_t single;
  ordered_json::array_t second;
  ordered_json special = ordered_json::object();
  const auto add = [&](bool wanted, const char* key) {
    if (!wanted) return;
    const auto token = find_token(file, tokens, key);
    require(token.has_value(), "{}: metadata key \"{}\" is missing, but the tokenizer adds that token",
            file.name(), key);
    const std::string text(*token);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    second.push_back({{"SpecialToken", {{"id", text}, {"type_id", 1}}}});
    special[text] = {{"id", text}, {"ids", {tokens.ids.at(*token)}}, {"tokens", {text}}};
  };
  add(bos, "tokenizer.ggml.bos_token_id");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  second.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  add(eos, "tokenizer.ggml.eos_token_id");
  ordered_json::array_t pair = single;
  pair.insert(pair.end(), second.begin(), second.end());
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json(std::move(single))},
          {"pair", ordered_json(std::move(pair))},
          {"special_tokens", std::move(special)}};
}

}  // namespace

ordered_json make_tokenizer_json(const GgufFile& file) {
  const std::string_view kind = file.get_string("tokenizer.ggml.model");
  require(
      kind == "gpt2",
      "{}: tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE), found \"{}\", which is not supported",
      file.name(), printable(kind));
  const std::string_view pre = file.get_string(kPre);
  ordered_json pre_tokenizer = make_pre_tokenizer(file, pre);
  const Tokens tokens = read_tokens(file);

  ordered_json document;
  document["version"] = "1.0";
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  document["added_tokens"] = make_added_tokens(file, tokens);
  document["normalizer"] = nullptr;
  document["pre_tokenizer"] = std::move(pre_tokenizer);
  document["post_processor"] = make_post_processor(file, tokens);
  document["decoder"] = byte_level(true, true);
  ordered_json& model = document["model"];
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  // A byte without a token is dropped, as Hugging Face does, not replaced.
  model["unk_token"] = nullptr;
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = false;
  model["byte_fallback"] = false;
  model["ignore_merges"] = is_llama3(pre);
  model["vocab"] = make_vocab(tokens);
  model["merges"] = make_merges(file, tokens);
  return document;
}

ordered_json make_tokenizer_config(const GgufFile& file) {
  const Tokens tokens = read_tokens(file);
  ordered_json config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["add_bos_token"] = adds_bos(file);
  config["add_prefix_space"] = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(false);
  config["clean_up_tokenization_spaces"] = false;
  const auto add_token = [&](const char* field, const char* key) {
    if (const auto token = find_token(file, tokens, key)) config[field] = *token;
  };
  add_token("bos_token", "tokenizer.ggml.bos_token_id");
  add_token("eos_token", "tokenizer.ggml.eos_token_id");
  add_token("unk_token", "tokenizer.ggml.unknown_token_id");
  add_token("pad_token", "tokenizer.ggml.padding_token_id");
  if (const auto context = file.find_uint("llama.context_length")) config["model_max_length"] = *context;
  if (const auto chat_template = file.find_string("tokenizer.chat_template"))
    config["chat_template"] = *chat_template;
  return config;
}

}  // namespace atom
