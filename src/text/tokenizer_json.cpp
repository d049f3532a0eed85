#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace atom::text {
namespace {

using Json = nlohmann::json;

// Ids index a table; a document with a stray huge id must not ask for a huge one.
constexpr int64_t kMaxId = 1 << 22;
constexpr size_t kMaxPreTokenizerSteps = 64;

/// A value inside the document and its path, for errors: `tokenizer.json: model.vocab: expected ...`.
class Field {
 public:
  Field(const Json& value, std::string path) : value_(value), path_(std::move(path)) {}

  const Json& value() const { return value_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_.is_null(); }

  [[noreturn]] void bad(std::string_view expected) const {
    fail("{}: expected {}, found {}", path_, expected, found());
  }

  Field at(const char* key) const {
    static const Json kNull;
    const auto it = object().find(key);
    return {it == object().end() ? kNull : *it, path_ + (path_.ends_with(": ") ? "" : ".") + key};
  }
  Field at(size_t index) const { return {array()[index], fmt::format("{}[{}]", path_, index)}; }

  const Json& object() const {
    if (!value_.is_object()) bad("an object");
    return value_;
  }
  const Json& array() const {
    if (!value_.is_array()) bad("an array");
    return value_;
  }
  const std::string& string() const {
    if (!value_.is_string()) bad("a string");
    return value_.get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_.is_boolean()) bad("true or false");
    return value_.get<bool>();
  }
  bool boolean_or(bool fallback) const { return is_null() ? fallback : boolean(); }
  int32_t id() const {
    if (!value_.is_number_integer()) bad("a token id");
    if (value_.is_number_unsigned() ? value_.get<uint64_t>() >= kMaxId
                                    : value_.get<int64_t>() < 0 || value_.get<int64_t>() >= kMaxId) {
      bad(fmt::format("a token id below {}", kMaxId));
    }
    return value_.get<int32_t>();
  }

  /// Refuses members that this reader does not know.
  void only(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, member] : object().items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        fail("{}: member \"{}\" is not supported", path_, printable(key));
      }
    }
  }

 private:
  std::string found() const {
    if (value_.is_string()) return "\"" + printable(value_.get_ref<const std::string&>()) + "\"";
    if (value_.is_number() || value_.is_boolean()) return value_.dump();
    return value_.type_name();
  }

  const Json& value_;
  std::string path_;
};

}  // namespace

class TokenizerReader {
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
    read_normalizer(root_.at("normalizer"));
    read_pre_tokenizer(root_.at("pre_tokenizer"));
    if (data_->steps.empty() || !std::holds_alternative<ByteLevelStep>(data_->steps.back())) {
      fail("{}: expected ByteLevel as the last step, which is the only kind of BPE that is supported",
           root_.at("pre_tokenizer").path());
    }
    read_decoder(root_.at("decoder"));
    read_vocabulary();
    read_model();
    read_added_tokens();
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

  void read_normalizer(const Field& field) {
    if (field.is_null()) return;
    const std::string& type = field.at("type").string();
    if (type != "Sequence") field.at("type").bad("no normalizer (null), as none is supported");
    field.only({"type", "normalizers"});
    const Field list = field.at("normalizers");
    for (size_t i = 0; i < list.array().size(); ++i) read_normalizer(list.at(i));
  }

  void read_pre_tokenizer(const Field& field) {
    if (field.is_null()) return;
    if (!data_->steps.empty() && std::holds_alternative<ByteLevelStep>(data_->steps.back())) {
      field.bad("nothing behind ByteLevel");
    }
    require(data_->steps.size() < kMaxPreTokenizerSteps, "{}: expected at most {} steps", field.path(),
            kMaxPreTokenizerSteps);
    const std::string& type = field.at("type").string();
    if (type == "Sequence") {
      field.only({"type", "pretokenizers"});
      const Field list = field.at("pretokenizers");
      for (size_t i = 0; i < list.array().size(); ++i) read_pre_tokenizer(list.at(i));
    } else if (type == "ByteLevel") {
      field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
      data_->steps.push_back(
          ByteLevelStep{field.at("add_prefix_space").boolean(), field.at("use_regex").boolean_or(true)});
    } else if (type == "Digits") {
      field.only({"type", "individual_digits"});
      data_->steps.push_back(DigitsStep{field.at("individual_digits").boolean()});
    } else if (type == "Split") {
      read_split(field);
    } else {
      field.at("type").bad("Sequence, ByteLevel, Digits or Split");
    }
  }

  void read_split(const Field& field) {
    field.only({"type", "pattern", "behavior", "invert"});
    const Field pattern = field.at("pattern");
    pattern.only({"Regex", "String"});
    if (pattern.object().size() != 1) pattern.bad("one of Regex and String");
    const bool is_regex = pattern.object().contains("Regex");
    const Field text = pattern.at(is_regex ? "Regex" : "String");
    const std::string translated =
        is_regex ? translate_oniguruma(text.string(), text.path()) : escape_regex(text.string());
    constexpr std::pair<const char*, SplitBehavior> kBehaviors[] = {
        {"Removed", SplitBehavior::kRemoved},
        {"Isolated", SplitBehavior::kIsolated},
        {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
        {"MergedWithNext", SplitBehavior::kMergedWithNext},
        {"Contiguous", SplitBehavior::kContiguous},
    };
    const Field behavior = field.at("behavior");
    for (const auto& [name, value] : kBehaviors) {
      if (behavior.string() != name) continue;
      data_->steps.push_back(
          SplitStep{Regex(translated, text.path()), value, field.at("invert").boolean_or(false)});
      return;
    }
    behavior.bad("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  }

  void read_decoder(const Field& field) {
    if (field.is_null()) field.bad("ByteLevel");
    const std::string& type = field.at("type").string();
    if (type == "Sequence") {
      field.only({"type", "decoders"});
      const Field list = field.at("decoders");
      if (list.array().size() != 1) list.bad("ByteLevel alone");
      return read_decoder(list.at(size_t{0}));
    }
    if (type != "ByteLevel") field.at("type").bad("ByteLevel");
    field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
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
      entry.bytes = byte_level_decode(text).value_or(text);
      data_->ids.emplace(text, id);
    }
    vocab_count_ = data_->ids.size();
  }

  void read_added_tokens() {
    const Field list = root_.at("added_tokens");
    std::vector<AddedToken> added;
    if (list.is_null()) return;
    // Where `tokenizers` would put the next token that the vocabulary lacks.
    int64_t next_id = static_cast<int64_t>(vocab_count_);
    for (size_t i = 0; i < list.array().size(); ++i) {
      const Field field = list.at(i);
      field.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      AddedToken token;
      token.content = field.at("content").string();
      token.id = field.at("id").id();
      token.special = field.at("special").boolean();
      token.lstrip = field.at("lstrip").boolean_or(false);
      token.rstrip = field.at("rstrip").boolean_or(false);
      token.single_word = field.at("single_word").boolean_or(false);
      token.normalized = field.at("normalized").boolean_or(!token.special);
      if (token.content.empty()) field.at("content").bad("at least one character");
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
      entry.present = true;
      entry.text = entry.bytes = token.content;
      entry.special |= token.special;
      added.push_back(std::move(token));
    }
    data_->added = AddedTokens(std::move(added));
  }

  int32_t known_id(const Field& field, const std::string& text) const {
    const auto it = data_->ids.find(text);
    if (it == data_->ids.end()) fail("{}: \"{}\" is not in the vocabulary", field.path(), printable(text));
    return it->second;
  }

  /// Refuses everything but null, false, 0 and "".
  static void must_be_off(const Field& field) {
    const Json& value = field.value();
    const bool off = value.is_null() || value == false || value == 0 || value == "";
    if (!off) field.bad("nothing, as this option is not supported");
  }

  void read_model() {
    const Field model = root_.at("model");
    model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    for (const char* option :
         {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
      must_be_off(model.at(option));
    }
    Bpe::Config config;
    const Field unknown = model.at("unk_token");
    if (!unknown.is_null()) config.unknown_id = known_id(unknown, unknown.string());
    config.fuse_unknown = model.at("fuse_unk").boolean_or(false);
    for (int byte = 0; byte < 256; ++byte) {
      const auto it = data_->ids.find(byte_level_encode(std::string(1, static_cast<char>(byte))));
      config.byte_ids[static_cast<size_t>(byte)] = it == data_->ids.end() ? -1 : it->second;
    }
    const Field merges = model.at("merges");
    config.merges.reserve(merges.array().size());
    for (size_t i = 0; i < merges.array().size(); ++i) config.merges.push_back(read_merge(merges, i));
    if (model.at("ignore_merges").boolean_or(false)) {
      for (const auto& [text, value] : model.at("vocab").object().items()) {
        if (const auto bytes = byte_level_decode(text))
          config.whole_words.emplace_back(*bytes, value.get<int32_t>());
      }
    }
    data_->model.emplace(std::move(config));
  }

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
    return {id(left), id(right), id(left + right)};
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
    } else {
      field.at("type").bad("ByteLevel, TemplateProcessing or Sequence");
    }
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
        const int32_t id = ids.at(k).id();
        const bool known =
            id < static_cast<int32_t>(data_->tokens.size()) && data_->tokens[static_cast<size_t>(id)].present;
        if (!known) ids.at(k).bad("an id of the vocabulary");
        (sequences == 0 ? before : after).push_back(id);
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
