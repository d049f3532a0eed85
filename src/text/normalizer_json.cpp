#include "base/base64.h"
#include "base/utf8.h"
#include "text/tokenizer_parts.h"

namespace atom::text {
namespace {

// What one match or one text may be replaced by or preceded by.
constexpr size_t kMaxContent = 256;
constexpr size_t kMaxSteps = 64;
// What is looked for at every place of a text.
constexpr size_t kMaxKept = 1024;

std::string read_content(const Field& field) {
  const std::string& content = field.string();
  if (content.size() > kMaxContent) field.bad(fmt::format("at most {} bytes", kMaxContent));
  return content;
}

/// What no normalization changes: SentencePiece's user-defined pieces.
std::shared_ptr<const ByteTrie> read_kept(const Field& field) {
  if (field.is_null()) return nullptr;
  auto kept = std::make_shared<ByteTrie>();
  for (size_t i = 0; i < field.array().size(); ++i) {
    const Field text = field.at(i);
    if (text.string().empty() || text.string().size() > kMaxKept)
      text.bad(fmt::format("1 to {} bytes", kMaxKept));
    kept->add(text.string(), 0);
  }
  return kept;
}

CharsmapStep read_charsmap(const Field& field) {
  // Atom's own: "search", "longest" being how SentencePiece itself applies the table, and, with it, "kept"
  // and "remove_extra_spaces".
  field.only({"type", "precompiled_charsmap", "search", "kept", "remove_extra_spaces"});
  const Field table = field.at("precompiled_charsmap");
  const Field search = field.at("search");
  if (!search.is_null() && search.value() != "longest") search.bad("\"longest\"");
  const auto bytes = decode_base64(table.string());
  if (!bytes) table.bad("base64");
  CharsmapStep step{
      std::make_shared<const Charsmap>(
          *bytes, search.is_null() ? Charsmap::Search::kGraphemes : Charsmap::Search::kLongest, table.path()),
      read_kept(field.at("kept")), field.at("remove_extra_spaces").boolean_or(false)};
  if (step.kept != nullptr && search.is_null()) search.bad("\"longest\", as there is \"kept\"");
  if (step.remove_extra_spaces && step.kept == nullptr)
    field.at("kept").bad("an array, as spaces are removed");
  return step;
}

void add_steps(const Field& field, std::vector<NormalizerStep>& steps) {
  if (field.is_null()) return;
  require(steps.size() < kMaxSteps, "{}: expected at most {} steps", field.path(), kMaxSteps);
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.only({"type", "normalizers"});
    const Field list = field.at("normalizers");
    for (size_t i = 0; i < list.array().size(); ++i) add_steps(list.at(i), steps);
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    field.only({"type"});
    const bool composed = type.back() == 'C';
    const bool compatible = type.size() == 4;
    steps.push_back(UnicodeStep{compatible ? (composed ? NormalizationForm::kNfkc : NormalizationForm::kNfkd)
                                           : (composed ? NormalizationForm::kNfc : NormalizationForm::kNfd)});
  } else if (type == "Lowercase") {
    field.only({"type"});
    steps.push_back(LowercaseStep{});
  } else if (type == "StripAccents") {
    field.only({"type"});
    steps.push_back(StripMarksStep{});
  } else if (type == "Strip") {
    field.only({"type", "strip_left", "strip_right"});
    steps.push_back(StripStep{field.at("strip_left").boolean(), field.at("strip_right").boolean()});
  } else if (type == "Prepend") {
    // "prepend_scheme" is Atom's own, for models of SentencePiece.
    field.only({"type", "prepend", "prepend_scheme"});
    const Field scheme = field.at("prepend_scheme");
    if (!scheme.is_null() && scheme.value() != "first" && scheme.value() != "always")
      scheme.bad("first or always");
    const bool own = !scheme.is_null();
    steps.push_back(PrependStep{read_content(field.at("prepend")), own && scheme.value() == "first", own});
  } else if (type == "Replace") {
    steps.push_back(read_replace(field));
  } else if (type == "Precompiled") {
    steps.push_back(read_charsmap(field));
  } else {
    field.at("type").bad(
        "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace or Precompiled");
  }
}

}  // namespace

std::string read_character(const Field& field) {
  const std::string& text = field.string();
  if (text.empty() || decode_utf8(text).length != text.size()) field.bad("one character");
  return text;
}

Regex read_pattern(const Field& field) {
  field.only({"Regex", "String"});
  if (field.object().size() != 1) field.bad("one of Regex and String");
  const bool is_regex = field.object().contains("Regex");
  const Field text = field.at(is_regex ? "Regex" : "String");
  return Regex(is_regex ? translate_oniguruma(text.string(), text.path()) : escape_regex(text.string()),
               text.path());
}

ReplaceStep read_replace(const Field& field) {
  field.only({"type", "pattern", "content"});
  const Field pattern = field.at("pattern");
  ReplaceStep step;
  step.content = read_content(field.at("content"));
  if (pattern.object().size() == 1 && pattern.object().contains("String")) {
    step.text = pattern.at("String").string();
    if (!step.text.empty()) return step;
  }
  step.pattern = std::make_shared<const Regex>(read_pattern(pattern));
  return step;
}

std::vector<NormalizerStep> read_normalizer(const Field& field) {
  std::vector<NormalizerStep> steps;
  add_steps(field, steps);
  return steps;
}

}  // namespace atom::text
