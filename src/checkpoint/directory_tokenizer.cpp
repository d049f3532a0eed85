#include "checkpoint/directory_tokenizer.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "checkpoint/json.h"
#include "checkpoint/sentencepiece_model.h"
#include "checkpoint/tekken_tokenizer.h"
#include "checkpoint/tokenizer_document.h"

namespace atom {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t kMaxModelBytes = size_t{1} << 28;
constexpr uint64_t kMaxId = uint64_t{1} << 22;

/// The file of `directory` that is named `exact`, else the only one whose name `fits`. Several that fit are
/// an Error.
std::optional<fs::path> find_file(const fs::path& directory, const char* exact,
                                  bool (*fits)(const std::string&)) {
  std::error_code error;
  if (fs::exists(directory / exact, error)) return directory / exact;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (fits(name)) names.push_back(name);
  }
  if (names.empty()) return std::nullopt;
  std::sort(names.begin(), names.end());
  require(names.size() == 1, "{}: expected one tokenizer, found {} and {}", directory.string(), names[0],
          names.back());
  return directory / names[0];
}

bool is_tekken(const std::string& name) {
  return name.starts_with("tekken") && name.ends_with(".json");
}

bool is_sentencepiece(const std::string& name) {
  const size_t place = name.rfind(".model");
  return place != std::string::npos && place > 0 &&
         (place + 6 == name.size() || name.compare(place + 6, 2, ".v") == 0);
}

ordered_json object_or_empty(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return ordered_json::object();
  ordered_json document = read_json_file(path);
  require(document.is_object(), "{}: expected a JSON object, found {}", path.string(), document.type_name());
  return document;
}

/// The text of a special token: a string, or an object with it.
std::optional<std::string> token_text(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return std::nullopt;
}

bool flag(const ordered_json& object, const char* name, bool fallback) {
  return object.contains(name) && object[name].is_boolean() ? object[name].get<bool>() : fallback;
}

/// Adds tokens to a document, or changes how those it has are looked for.
class TokenAdder {
 public:
  TokenAdder(ordered_json& document, std::string source) : document_(document), source_(std::move(source)) {
    for (const auto& [text, id] : document["model"]["vocab"].items()) {
      ids_[text] = id.get<uint64_t>();
      texts_[id.get<uint64_t>()] = text;
    }
    for (ordered_json& token : document["added_tokens"]) added_[token["content"]] = token;
  }

  void add(uint64_t id, const std::string& text, const ordered_json& flags, const std::string& field) {
    require(id < kMaxId, "{}: {}: expected an id below {}, found {}", source_, field, kMaxId, id);
    require(!text.empty(), "{}: {}: the token is empty", source_, field);
    const auto known = ids_.find(text);
    const auto taken = texts_.find(id);
    require(known == ids_.end() || known->second == id, "{}: {}: \"{}\" has id {} in the model, found {}",
            source_, field, printable(text), known == ids_.end() ? 0 : known->second, id);
    require(taken == texts_.end() || taken->second == text,
            "{}: {}: id {} is \"{}\" in the model, found \"{}\"", source_, field, id,
            printable(taken == texts_.end() ? "" : taken->second), printable(text));
    ids_[text] = id;
    texts_[id] = text;
    const bool special = flag(flags, "special", false);
    ordered_json token =
        added_token(static_cast<int64_t>(id), text, special, flag(flags, "normalized", !special));
    for (const char* name : {"single_word", "lstrip", "rstrip"}) token[name] = flag(flags, name, false);
    added_[text] = std::move(token);
  }

  /// Writes everything back, in the order of the ids.
  void finish() {
    ordered_json::object_t vocab;
    vocab.reserve(texts_.size());
    ordered_json::array_t added;
    for (const auto& [id, text] : texts_) {
      append_member(vocab, text, id);
      if (const auto token = added_.find(text); token != added_.end())
        added.push_back(std::move(token->second));
    }
    document_["model"]["vocab"] = ordered_json(std::move(vocab));
    document_["added_tokens"] = ordered_json(std::move(added));
  }

 private:
  ordered_json& document_;
  std::string source_;
  std::map<std::string, uint64_t> ids_;
  std::map<uint64_t, std::string> texts_;
  std::map<std::string, ordered_json> added_;
};

uint64_t parse_id(const std::string& digits, const std::string& source) {
  const bool number = !digits.empty() && digits.size() <= 9 &&
                      std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  require(number, "{}: added_tokens_decoder: expected ids as keys, found \"{}\"", source, printable(digits));
  return std::stoull(digits);
}

void add_tokens_beside(const fs::path& directory, const ordered_json& config, ordered_json& document) {
  const std::string config_name = (directory / "tokenizer_config.json").string();
  const std::string added_name = (directory / "added_tokens.json").string();
  const ordered_json added = object_or_empty(added_name);
  const bool has_decoder =
      config.contains("added_tokens_decoder") && config["added_tokens_decoder"].is_object();
  if (added.empty() && !has_decoder) return;
  TokenAdder adder(document, has_decoder ? config_name : added_name);
  for (const auto& [text, id] : added.items()) {
    require(id.is_number_unsigned(), "{}: {}: expected an id, found {}", added_name, printable(text),
            printable(id.dump(), 40));
    adder.add(id.get<uint64_t>(), text, {{"special", true}}, "added_tokens.json");
  }
  if (has_decoder) {
    for (const auto& [key, token] : config["added_tokens_decoder"].items()) {
      const auto text = token_text(token);
      require(text.has_value(), "{}: added_tokens_decoder[\"{}\"]: expected a token", config_name,
              printable(key));
      adder.add(parse_id(key, config_name), *text, token, "added_tokens_decoder");
    }
  }
  adder.finish();
}

/// The token that `config` names, or the piece of that id, which is then written into `config`.
std::optional<FrameToken> special_token(const char* name, int64_t id, const ordered_json& vocab,
                                        ordered_json& config, const std::vector<Piece>& pieces) {
  if (config.contains(name)) {
    const auto text = token_text(config[name]);
    if (!text || !vocab.contains(*text)) return std::nullopt;
    return FrameToken{*text, vocab[*text].get<int64_t>()};
  }
  if (id < 0) return std::nullopt;
  const std::string& text = pieces[static_cast<size_t>(id)].text;
  config[name] = text;
  return FrameToken{text, id};
}

ordered_json read_sentencepiece(const fs::path& directory, const fs::path& file, ordered_json& config) {
  const SentencePieceModel read =
      read_sentencepiece_model(read_text_file(file, kMaxModelBytes), file.string());
  PieceModel model = read.model;
  model.prefix_behind_special = flag(config, "legacy", true);
  model.add_dummy_prefix = model.add_dummy_prefix && flag(config, "add_prefix_space", true);
  ordered_json document = make_piece_tokenizer(model);
  add_tokens_beside(directory, config, document);
  const ordered_json& vocab = document["model"]["vocab"];
  const auto bos = special_token("bos_token", read.bos_id, vocab, config, model.pieces);
  const auto eos = special_token("eos_token", read.eos_id, vocab, config, model.pieces);
  special_token("pad_token", read.pad_id, vocab, config, model.pieces);
  if (const ordered_json& unknown = document["model"]["unk_token"];
      !config.contains("unk_token") && !unknown.is_null())
    config["unk_token"] = unknown;
  document["post_processor"] = frame_part(flag(config, "add_bos_token", true) ? bos : std::nullopt,
                                          flag(config, "add_eos_token", false) ? eos : std::nullopt);
  return document;
}

ordered_json read_tekken(const fs::path& file, ordered_json& config) {
  ordered_json document = make_tekken_tokenizer(read_json_file(file), file.string());
  const ordered_json& vocab = document["model"]["vocab"];
  constexpr std::pair<const char*, const char*> kNames[] = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
  for (const auto& [name, text] : kNames) {
    if (!config.contains(name) && vocab.contains(text)) config[name] = text;
  }
  if (!flag(config, "add_bos_token", true)) document["post_processor"] = nullptr;
  return document;
}

}  // namespace

void add_special_tokens_map(const fs::path& directory, ordered_json& config) {
  const ordered_json map = object_or_empty(directory / "special_tokens_map.json");
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    if (config.contains(name) || !map.contains(name)) continue;
    if (const auto text = token_text(map[name])) config[name] = *text;
  }
}

std::optional<ordered_json> read_directory_tokenizer(const fs::path& directory, ordered_json& config) {
  if (const auto file = find_file(directory, "tekken.json", is_tekken)) return read_tekken(*file, config);
  if (const auto file = find_file(directory, "tokenizer.model", is_sentencepiece))
    return read_sentencepiece(directory, *file, config);
  return std::nullopt;
}

}  // namespace atom
