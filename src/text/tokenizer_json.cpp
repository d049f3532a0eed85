#include <set>

#include "base/byte_level.h"
#include "base/error.h"
#include "base/utf8.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

// What is looked for at every place of a text.
constexpr size_t kMaxAddedBytes = 1024;
// What all tokens together stand for.
constexpr size_t kMaxTextBytes = size_t{64} << 20;

}  // namespace

class TokenizerReader {
  using Json = nlohmann::json;

 public:
  TokenizerReader(const Json& document, std::string_view source)
      : root_(document, std::string(source) + ": "), data_(std::make_unique<Tokenizer::Data>()) {
    data_->source = source;
  }

  Tokenizer read() {
    root_.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
    if (!root_.at("truncation").is_null()) root_.at("truncation").bad("null");
    read_padding();
    data_->normalizer = read_normalizer(root_.at("normalizer"));
    data_->steps = read_pre_tokenizer(root_.at("pre_tokenizer"));
    data_->decoder = read_decoder(root_.at("decoder"));
    data_->first_token_differs = data_->decoder.first_differs();
    read_vocabulary();
    read_model();
    read_added_tokens();
    read_token_texts();
    read_post_processor(root_.at("post_processor"));
    return Tokenizer(std::move(data_));
  }

 private:
  /// Padding to the longest of a batch leaves a single text alone.
  void read_padding() {
    const Field padding = root_.at("padding");
    if (padding.is_null()) return;
    const Field strategy = padding.at("strategy");
    if (strategy.value() != "BatchLongest") strategy.bad("\"BatchLongest\"");
    const Field multiple = padding.at("pad_to_multiple_of");
    if (!multiple.is_null()) multiple.bad("null");
  }

  Tokenizer::Data::Token& token(int32_t id) {
    if (static_cast<size_t>(id) >= data_->tokens.size()) data_->tokens.resize(static_cast<size_t>(id) + 1);
    return data_->tokens[static_cast<size_t>(id)];
  }

  void read_vocabulary() {
    const Field model = root_.at("model");
    const Field type = model.at("type");
    if (type.string() != "BPE") type.bad("\"BPE\"");
    const Field vocab = model.at("vocab");
    data_->ids.reserve(vocab.object().size());
    for (const auto& [text, value] : vocab.object().items()) {
      const int32_t id = Field(value, vocab.path() + "[\"" + printable(text) + "\"]").id();
      Tokenizer::Data::Token& entry = token(id);
      require(!entry.present, "{}: expected each id once, found {} for \"{}\" and \"{}\"", vocab.path(), id,
              printable(entry.text), printable(text));
      entry.present = true;
      entry.text = text;
      data_->ids.emplace(text, id);
    }
    vocab_count_ = data_->ids.size();
  }

  void read_added_tokens() {
    const Field list = root_.at("added_tokens");
    std::vector<AddedToken> added;
    std::unordered_map<std::string, size_t> places;
    if (list.is_null()) return;
    // Where `tokenizers` would put the next token that the vocabulary lacks.
    int64_t next_id = static_cast<int64_t>(vocab_count_);
    for (size_t i = 0; i < list.array().size(); ++i) {
      const Field field = list.at(i);
      field.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", "search"});
      AddedToken token;
      token.content = field.at("content").string();
      token.id = field.at("id").id();
      token.special = field.at("special").boolean();
      token.lstrip = field.at("lstrip").boolean_or(false);
      token.rstrip = field.at("rstrip").boolean_or(false);
      token.single_word = field.at("single_word").boolean_or(false);
      token.normalized = field.at("normalized").boolean_or(!token.special);
      if (token.content.empty() || token.content.size() > kMaxAddedBytes)
        field.at("content").bad(fmt::format("1 to {} bytes", kMaxAddedBytes));
      token.pattern = token.normalized ? normalize(data_->normalizer, token.content, TextPart::kAddedToken)
                                       : token.content;
      // "search" is Atom's own, for models of SentencePiece: the content as it is, in normalized text.
      const Field search = field.at("search");
      if (!search.is_null() && (search.value() != "normalized" || token.normalized))
        search.bad("\"normalized\", and normalized false");
      token.normalized |= !search.is_null();
      const auto known = data_->ids.find(token.content);
      if (known == data_->ids.end()) {
        require(token.id == next_id, "{}: expected {}, the next id behind the vocabulary, found {}",
                field.at("id").path(), next_id, token.id);
        ++next_id;
        data_->ids.emplace(token.content, token.id);
      } else {
        require(token.id == known->second, "{}: expected {} as in model.vocab, found {}",
                field.at("id").path(), known->second, token.id);
      }
      Tokenizer::Data::Token& entry = this->token(token.id);
      require(!entry.present || entry.text == token.content, "{}: id {} is \"{}\" in model.vocab",
              field.at("id").path(), token.id, printable(entry.text));
      entry.present = entry.added = true;
      entry.text = token.content;
      entry.special |= token.special;
      const auto [place, is_new] = places.emplace(token.content, added.size());
      if (is_new) {
        added.push_back(std::move(token));
      } else {
        added[place->second] = std::move(token);
      }
    }
    data_->added = AddedTokens(std::move(added));
  }

  /// What each token stands for.
  void read_token_texts() {
    std::unordered_map<int32_t, const AddedToken*> added;
    for (const AddedToken& token : data_->added.tokens()) added.emplace(token.id, &token);
    size_t bytes = 0;
    for (size_t id = 0; id < data_->tokens.size(); ++id) {
      Tokenizer::Data::Token& token = data_->tokens[id];
      if (!token.present) continue;
      if (token.added) {
        token.bytes = added.at(static_cast<int32_t>(id))->pattern;
        if (!data_->decoder.byte_level) token.bytes = data_->decoder.apply(token.bytes, false);
      } else {
        token.bytes = data_->decoder.apply(token.text, false);
        const int byte = data_->decoder.byte_fallback ? fallback_byte(token.bytes) : -1;
        token.byte = byte >= 0;
        if (token.byte) token.bytes = static_cast<char>(byte);
      }
      bytes += token.bytes.size();
      require(bytes <= kMaxTextBytes, "{}: the decoder makes more than {} bytes of the vocabulary",
              root_.at("decoder").path(), kMaxTextBytes);
    }
  }

  int32_t known_id(const Field& field, const std::string& text) const {
    const auto it = data_->ids.find(text);
    if (it == data_->ids.end()) fail("{}: \"{}\" is not in the vocabulary", field.path(), printable(text));
    return it->second;
  }

  int32_t id_or_none(const std::string& text) const {
    const auto it = data_->ids.find(text);
    return it == data_->ids.end() ? -1 : it->second;
  }

  void read_model() {
    const Field model = root_.at("model");
    model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges", "merge_ranks", "unused_tokens"});
    for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      model.at(option).must_be_off();
    }
    Bpe::Config config;
    config.characters = !is_byte_level(data_->steps);
    read_alphabet(model, config);
    const Field unknown = model.at("unk_token");
    const bool complete = !config.characters && std::find(config.byte_ids.begin(), config.byte_ids.end(),
                                                          -1) == config.byte_ids.end();
    // Where every byte has a token there is nothing unknown.
    if (!unknown.is_null() && !(complete && id_or_none(unknown.string()) < 0))
      config.unknown_id = known_id(unknown, unknown.string());
    config.fuse_unknown = model.at("fuse_unk").boolean_or(false);
    read_merges(model, config);
    if (model.at("ignore_merges").boolean_or(false)) {
      for (const auto& [text, value] : model.at("vocab").object().items()) {
        const auto bytes = config.characters ? std::optional(text) : byte_level_decode(text);
        if (bytes) config.whole_words.emplace_back(*bytes, value.get<int32_t>());
      }
    }
    // "unused_tokens" is Atom's own, for models of SentencePiece.
    if (const Field unused = model.at("unused_tokens"); !unused.is_null()) {
      for (size_t i = 0; i < unused.array().size(); ++i) config.unused.push_back(unused.at(i).id());
    }
    data_->model.emplace(std::move(config));
  }

  /// The tokens that words start as.
  void read_alphabet(const Field& model, Bpe::Config& config) const {
    const bool byte_fallback = model.at("byte_fallback").boolean_or(false);
    for (int byte = 0; byte < 256; ++byte) {
      int32_t& id = config.byte_ids[static_cast<size_t>(byte)];
      if (config.characters) {
        id = byte_fallback ? id_or_none(fallback_token(static_cast<uint8_t>(byte))) : -1;
      } else {
        id = id_or_none(byte_level_encode(std::string(1, static_cast<char>(byte))));
        if (id < 0 && byte_fallback) model.at("byte_fallback").bad("false, as the vocabulary lacks a byte");
      }
    }
    if (!config.characters) return;
    for (const auto& [text, id] : data_->ids) {
      if (text.empty() || decode_utf8(text).length != text.size()) continue;
      config.char_ids.emplace_back(decode_utf8(text).code_point, id);
    }
  }

  void read_merges(const Field& model, Bpe::Config& config) const {
    const Field merges = model.at("merges");
    // "merge_ranks" is Atom's own, for models of SentencePiece: the rank of each merge, where several have
    // the same.
    const Field ranks = model.at("merge_ranks");
    if (!ranks.is_null() && ranks.array().size() != merges.array().size())
      ranks.bad(fmt::format("{} ranks, one a merge", merges.array().size()));
    config.merges.reserve(merges.array().size());
    std::set<char32_t> joined;
    config.cut_at_marks = config.characters && id_or_none(std::string(kSpaceMark)) >= 0;
    const auto is_text = [&](int32_t id) {
      return id != config.unknown_id &&
             std::find(config.byte_ids.begin(), config.byte_ids.end(), id) == config.byte_ids.end();
    };
    for (size_t i = 0; i < merges.array().size(); ++i) {
      const Json& value = merges.array()[i];
      if (value.is_string() && value.get_ref<const std::string&>().starts_with("#version")) continue;
      Bpe::Merge merge = read_merge(merges, i);
      if (!ranks.is_null()) {
        const Json& rank = ranks.array()[i];
        if (!rank.is_number_unsigned() || rank.get<uint64_t>() > merges.array().size())
          ranks.at(i).bad(fmt::format("a rank of at most {}", merges.array().size()));
        merge.rank = rank.get<int32_t>();
      }
      if (config.cut_at_marks) {
        const std::string_view left = token_text(merge.left);
        if (!left.empty() && token_text(merge.right).starts_with(kSpaceMark))
          joined.insert(decode_utf8(left.substr(last_char(left))).code_point);
        config.cut_at_marks = is_text(merge.left) && is_text(merge.right);
      }
      config.merges.push_back(merge);
    }
    config.joined_to_mark.assign(joined.begin(), joined.end());
  }

  std::string_view token_text(int32_t id) const { return data_->tokens[static_cast<size_t>(id)].text; }

  Bpe::Merge read_merge(const Field& merges, size_t index) const {
    const Json& value = merges.array()[index];
    const auto bad = [&] { merges.at(index).bad("\"left right\" or [\"left\", \"right\"]"); };
    std::string left;
    std::string right;
    if (value.is_array()) {
      if (value.size() != 2 || !value[0].is_string() || !value[1].is_string()) bad();
      left = value[0].get<std::string>();
      right = value[1].get<std::string>();
    } else {
      if (!value.is_string()) bad();
      const std::string& pair = value.get_ref<const std::string&>();
      const size_t space = pair.find(' ');
      if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) bad();
      left = pair.substr(0, space);
      right = pair.substr(space + 1);
    }
    const auto id = [&](const std::string& text) {
      const auto it = data_->ids.find(text);
      if (it == data_->ids.end()) known_id(merges.at(index), text);
      return it->second;
    };
    return {id(left), id(right), id(left + right), static_cast<int32_t>(index)};
  }

  void read_post_processor(const Field& field) {
    if (field.is_null()) return;
    const std::string& type = field.at("type").string();
    if (type == "ByteLevel") {
      field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    } else if (type == "Sequence") {
      field.only({"type", "processors"});
      const Field list = field.at("processors");
      for (size_t i = 0; i < list.array().size(); ++i) read_post_processor(list.at(i));
    } else if (type == "TemplateProcessing") {
      read_template(field);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      field.only({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
      data_->prefix.insert(data_->prefix.begin(), read_frame_token(field.at("cls")));
      data_->suffix.push_back(read_frame_token(field.at("sep")));
    } else {
      field.at("type").bad("ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or Sequence");
    }
  }

  /// `["</s>", 2]`.
  int32_t read_frame_token(const Field& field) const {
    if (field.array().size() != 2) field.bad("a token and its id");
    return present_id(field.at(1));
  }

  int32_t present_id(const Field& field) const {
    const int32_t id = field.id();
    const bool known =
        id < static_cast<int32_t>(data_->tokens.size()) && data_->tokens[static_cast<size_t>(id)].present;
    if (!known) field.bad("an id of the vocabulary");
    return id;
  }

  /// A template puts its special tokens around what earlier processors made. The template for pairs is not
  /// used.
  void read_template(const Field& field) {
    field.only({"type", "single", "pair", "special_tokens"});
    const Field single = field.at("single");
    std::vector<int32_t> before;
    std::vector<int32_t> after;
    int sequences = 0;
    for (size_t i = 0; i < single.array().size(); ++i) {
      const Field item = single.at(i);
      item.only({"Sequence", "SpecialToken"});
      if (item.object().contains("Sequence")) {
        if (item.at("Sequence").at("id").string() != "A") item.at("Sequence").at("id").bad("\"A\"");
        ++sequences;
        continue;
      }
      const std::string& name = item.at("SpecialToken").at("id").string();
      const Field ids = field.at("special_tokens").at(name.c_str()).at("ids");
      for (size_t k = 0; k < ids.array().size(); ++k) {
        (sequences == 0 ? before : after).push_back(present_id(ids.at(k)));
      }
    }
    if (sequences != 1) single.bad("the sequence A once");
    data_->prefix.insert(data_->prefix.begin(), before.begin(), before.end());
    data_->suffix.insert(data_->suffix.end(), after.begin(), after.end());
  }

  Field root_;
  std::unique_ptr<Tokenizer::Data> data_;
  size_t vocab_count_ = 0;
};

Tokenizer Tokenizer::from_json(const nlohmann::json& tokenizer_json, std::string_view source) {
  return TokenizerReader(tokenizer_json, source).read();
}

}  // namespace atom::text
