#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

constexpr size_t kMaxSteps = 64;

SplitBehavior read_behavior(const Field& field) {
  constexpr std::pair<const char*, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  };
  for (const auto& [name, value] : kBehaviors) {
    if (field.string() == name) return value;
  }
  field.bad("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

MetaspaceStep read_metaspace(const Field& field) {
  field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
  MetaspaceStep step;
  step.mark = read_character(field.at("replacement"));
  step.split = field.at("split").boolean_or(true);
  step.prepend = read_prepend_scheme(field);
  return step;
}

void add_steps(const Field& field, std::vector<PreTokenizerStep>& steps) {
  if (field.is_null()) return;
  require(steps.size() < kMaxSteps, "{}: expected at most {} steps", field.path(), kMaxSteps);
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.only({"type", "pretokenizers"});
    const Field list = field.at("pretokenizers");
    for (size_t i = 0; i < list.array().size(); ++i) add_steps(list.at(i), steps);
  } else if (type == "ByteLevel") {
    field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (is_byte_level(steps)) field.bad("ByteLevel once");
    steps.push_back(
        ByteLevelStep{field.at("add_prefix_space").boolean(), field.at("use_regex").boolean_or(true), false});
  } else if (type == "Digits") {
    field.only({"type", "individual_digits"});
    steps.push_back(DigitsStep{field.at("individual_digits").boolean()});
  } else if (type == "Split") {
    field.only({"type", "pattern", "behavior", "invert"});
    const SplitBehavior behavior = read_behavior(field.at("behavior"));
    steps.push_back(
        SplitStep{read_pattern(field.at("pattern")), behavior, field.at("invert").boolean_or(false)});
  } else if (type == "Punctuation") {
    field.only({"type", "behavior"});
    const Field behavior = field.at("behavior");
    steps.push_back(ClassStep{CharTable::kPunctuation,
                              behavior.is_null() ? SplitBehavior::kIsolated : read_behavior(behavior)});
  } else if (type == "WhitespaceSplit") {
    field.only({"type"});
    steps.push_back(ClassStep{CharTable::kSpace, SplitBehavior::kRemoved});
  } else if (type == "BertPreTokenizer") {
    field.only({"type"});
    steps.push_back(ClassStep{CharTable::kSpace, SplitBehavior::kRemoved});
    steps.push_back(ClassStep{CharTable::kPunctuation, SplitBehavior::kIsolated});
  } else if (type == "Whitespace") {
    field.only({"type"});
    steps.push_back(WordsStep{});
  } else if (type == "Metaspace") {
    if (is_byte_level(steps)) field.bad("no Metaspace behind ByteLevel");
    steps.push_back(read_metaspace(field));
  } else {
    field.at("type").bad(
        "Sequence, ByteLevel, Digits, Split, Punctuation, WhitespaceSplit, Whitespace, BertPreTokenizer or "
        "Metaspace");
  }
}

}  // namespace

MetaspaceStep::Prepend read_prepend_scheme(const Field& field) {
  const Field scheme = field.at("prepend_scheme");
  const Field prefix = field.at("add_prefix_space");  // how it was said before there were schemes
  if (scheme.is_null()) {
    return prefix.boolean_or(true) ? MetaspaceStep::Prepend::kAlways : MetaspaceStep::Prepend::kNever;
  }
  const std::string& name = scheme.string();
  if (name != "never" && !prefix.boolean_or(true)) prefix.bad("true as prepend_scheme says");
  if (name == "always") return MetaspaceStep::Prepend::kAlways;
  if (name == "first") return MetaspaceStep::Prepend::kFirst;
  if (name == "never") return MetaspaceStep::Prepend::kNever;
  scheme.bad("always, first or never");
}

bool is_byte_level(const std::vector<PreTokenizerStep>& steps) {
  return std::any_of(steps.begin(), steps.end(),
                     [](const auto& step) { return std::holds_alternative<ByteLevelStep>(step); });
}

std::vector<PreTokenizerStep> read_pre_tokenizer(const Field& field) {
  std::vector<PreTokenizerStep> steps;
  add_steps(field, steps);
  if (is_byte_level(steps) && !std::holds_alternative<ByteLevelStep>(steps.back())) {
    for (PreTokenizerStep& step : steps) {
      if (auto* byte_level = std::get_if<ByteLevelStep>(&step)) byte_level->write_alphabet = true;
    }
    steps.push_back(ReadAlphabetStep{});
  }
  return steps;
}

}  // namespace atom::text
