#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace atom::text {

/// What a step does with the delimiters that it finds.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Pieces of a text on their way to the model. Views point into the text or into `owned`.
struct Pieces {
  std::vector<std::string_view> list;
  std::deque<std::string> owned;
};

/// Cuts at the matches of a pattern; with `invert`, at what lies between them.
struct SplitStep {
  Regex pattern;
  SplitBehavior behavior;
  bool invert;
  void apply(std::string_view piece, Pieces& out) const;
};

/// Cuts numeric characters (general category N) off, each alone or a run at a time.
struct DigitsStep {
  bool individual;
  void apply(std::string_view piece, Pieces& out) const;
};

/// GPT-2's byte-level step: an optional space in front, then the split into words
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// The model works on bytes directly, so the change of alphabet has no code here.
struct ByteLevelStep {
  bool add_prefix_space;
  bool use_regex;
  void apply(std::string_view piece, Pieces& out) const;
};

/// A pre-tokenizer is a sequence of steps, each applied to every piece that the one before left.
/// A further kind is a further alternative here.
using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep>;

/// Splits `text` (well-formed UTF-8) into `pieces`; none of them is empty.
void pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, Pieces& pieces);

}  // namespace atom::text
