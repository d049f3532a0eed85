#include "checkpoint/tekken_tokenizer.h"

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/base64.h"
#include "base/byte_level.h"
#include "base/error.h"
#include "checkpoint/json.h"
#include "checkpoint/tokenizer_document.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kMaxTokens = uint64_t{1} << 22;

// Names of the first special tokens where the file has none (versions up to 7).
constexpr const char* kSpecialNames[] = {
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
};

class TekkenReader {
 public:
  TekkenReader(const ordered_json& document, std::string_view source)
      : document_(document), source_(source) {}

  ordered_json read() {
    const ordered_json& config = member(document_, "config");
    const uint64_t size = count(config, "default_vocab_size");
    const uint64_t special = count(config, "default_num_special_tokens");
    require(special <= size, "{}: config.default_num_special_tokens: expected at most {}, found {}", source_,
            size, special);
    const ordered_json& pattern = member(config, "pattern");
    require(pattern.is_string(), "{}: config.pattern: expected a string", source_);

    ordered_json document = empty_tokenizer_document();
    ordered_json::object_t vocab;
    vocab.reserve(size);
    add_special_tokens(special, vocab, document["added_tokens"]);
    add_tokens(size - special, special, vocab);
    ordered_json& model = document["model"];
    model["vocab"] = ordered_json(std::move(vocab));
    // A word that is a token is not looked into.
    model["ignore_merges"] = true;
    std::vector<RankedToken> ranked;
    ranked.reserve(texts_.size());
    for (size_t rank = 0; rank < texts_.size(); ++rank)
      ranked.push_back({texts_[rank], bytes_[rank] == 1 ? -1 : static_cast<int64_t>(rank)});
    add_ranked_merges(ranked, source_, model);
    document["pre_tokenizer"] = pre_tokenizer_sequence(
        {split_part(pattern.get_ref<const std::string&>()), byte_level_part(false, false)});
    document["decoder"] = byte_level_part(true, true);
    if (const auto bos = ids_of_special_.find("<s>"); bos != ids_of_special_.end())
      document["post_processor"] = frame_part(FrameToken{"<s>", bos->second}, std::nullopt);
    return document;
  }

 private:
  const ordered_json& member(const ordered_json& parent, const char* name) const {
    require(parent.is_object() && parent.contains(name), "{}: member \"{}\" is missing", source_, name);
    return parent[name];
  }

  uint64_t count(const ordered_json& parent, const char* name) const {
    const ordered_json& value = member(parent, name);
    require(value.is_number_unsigned() && value.get<uint64_t>() <= kMaxTokens,
            "{}: {}: expected a number from 0 to {}, found {}", source_, name, kMaxTokens,
            printable(value.dump(), 40));
    return value.get<uint64_t>();
  }

  void add_special_tokens(uint64_t most, ordered_json::object_t& vocab, ordered_json& added) {
    const auto add = [&](const std::string& text, bool control) {
      const auto id = static_cast<int64_t>(ids_of_special_.size());
      require(static_cast<uint64_t>(id) < most, "{}: special_tokens: expected at most {}", source_, most);
      require(!text.empty() && ids_of_special_.emplace(text, id).second,
              "{}: special_tokens[{}]: \"{}\" is empty or comes twice", source_, id, printable(text));
      append_member(vocab, text, id);
      added.push_back(added_token(id, text, control, false));
    };
    if (document_.contains("special_tokens") && !document_["special_tokens"].is_null()) {
      const ordered_json& list = document_["special_tokens"];
      require(list.is_array(), "{}: special_tokens: expected an array", source_);
      for (size_t i = 0; i < list.size(); ++i) {
        require(count(list[i], "rank") == i, "{}: special_tokens[{}].rank: expected {}", source_, i, i);
        const ordered_json& text = member(list[i], "token_str");
        require(text.is_string(), "{}: special_tokens[{}].token_str: expected a string", source_, i);
        const bool control = !list[i].contains("is_control") || list[i]["is_control"] != false;
        add(text.get_ref<const std::string&>(), control);
      }
    } else {
      for (size_t i = 0; i < std::min<uint64_t>(most, std::size(kSpecialNames)); ++i)
        add(kSpecialNames[i], true);
    }
    while (ids_of_special_.size() < most) add(fmt::format("<SPECIAL_{}>", ids_of_special_.size()), true);
  }

  void add_tokens(uint64_t number, uint64_t first_id, ordered_json::object_t& vocab) {
    const ordered_json& list = member(document_, "vocab");
    require(list.is_array() && list.size() >= number, "{}: vocab: expected an array of at least {} tokens",
            source_, number);
    std::unordered_set<std::string> known;
    texts_.reserve(number);
    for (size_t rank = 0; rank < number; ++rank) {
      require(count(list[rank], "rank") == rank, "{}: vocab[{}].rank: expected {}", source_, rank, rank);
      const ordered_json& encoded = member(list[rank], "token_bytes");
      const auto bytes =
          encoded.is_string() ? decode_base64(encoded.get_ref<const std::string&>()) : std::nullopt;
      require(bytes.has_value() && !bytes->empty(), "{}: vocab[{}].token_bytes: expected bytes in base64",
              source_, rank);
      std::string text = byte_level_encode(*bytes);
      require(known.insert(text).second, "{}: vocab[{}]: the token \"{}\" comes twice", source_, rank,
              printable(text));
      require(ids_of_special_.count(text) == 0, "{}: vocab[{}]: \"{}\" is a special token too", source_, rank,
              printable(text));
      append_member(vocab, text, first_id + rank);
      bytes_.push_back(bytes->size());
      texts_.push_back(std::move(text));
    }
  }

  const ordered_json& document_;
  std::string source_;
  std::unordered_map<std::string, int64_t> ids_of_special_;
  std::vector<std::string> texts_;  // by rank, in the byte alphabet
  std::vector<size_t> bytes_;       // their lengths in bytes
};

}  // namespace

ordered_json make_tekken_tokenizer(const ordered_json& tekken, std::string_view source) {
  return TekkenReader(tekken, source).read();
}

}  // namespace atom
