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
  const char* begin = nullptr;  // where the piece begins that the whole text begins with, if there is one
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

/// Cuts at the characters of some classes (flags of CharTable).
struct ClassStep {
  uint8_t classes;
  SplitBehavior behavior;
  void apply(std::string_view piece, Pieces& out) const;
};

/// Takes runs of word characters, and of what is neither word character nor white space.
struct WordsStep {
  void apply(std::string_view piece, Pieces& out) const;
};

/// Writes every space as `mark`, puts one in front of a piece that does not begin with one, and cuts in front
/// of each.
struct MetaspaceStep {
  enum class Prepend { kAlways, kFirst, kNever };
  std::string mark;  // one character
  Prepend prepend;
  bool split;
  void apply(std::string_view piece, Pieces& out) const;
};

/// GPT-2's byte-level step: an optional space in front, then the split into words
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// The model works on bytes directly, so the change of alphabet happens only where further steps see it.
struct ByteLevelStep {
  bool add_prefix_space;
  bool use_regex;
  bool write_alphabet;
  void apply(std::string_view piece, Pieces& out) const;
};

/// Takes pieces written in the byte alphabet back to bytes, behind the last step that saw them so.
struct ReadAlphabetStep {
  void apply(std::string_view piece, Pieces& out) const;
};

/// A pre-tokenizer is a sequence of steps, each applied to every piece that the one before left.
/// A further kind is a further alternative here.
using PreTokenizerStep =
    std::variant<SplitStep, DigitsStep, ClassStep, WordsStep, MetaspaceStep, ByteLevelStep, ReadAlphabetStep>;

/// Splits `text` (well-formed UTF-8) into `pieces`; none of them is empty. `at_begin`: it is the begin of the
/// whole text.
void pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_begin,
                  Pieces& pieces);

}  // namespace atom::text
