#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/byte_trie.h"
#include "text/charsmap.h"
#include "text/normalization.h"
#include "text/regex.h"

namespace atom::text {

struct UnicodeStep {
  NormalizationForm form;
};
struct LowercaseStep {};
struct StripMarksStep {};

/// Puts a text in front of what is not empty; with `first_only`, only at the begin of the whole text. With
/// `of_pieces`, as SentencePiece does: of all that was not empty before all steps, but not of the contents of
/// added tokens.
struct PrependStep {
  std::string text;
  bool first_only;
  bool of_pieces;
};

/// Replaces every occurrence of a string, or every match of a pattern.
struct ReplaceStep {
  std::string text;  // what to look for where there is no pattern
  std::shared_ptr<const Regex> pattern;
  std::string content;
};

/// Removes white space at the ends.
struct StripStep {
  bool left;
  bool right;
};

/// A table of SentencePiece; with `kept`, applied as Charsmap::apply_around does.
struct CharsmapStep {
  std::shared_ptr<const Charsmap> map;
  std::shared_ptr<const ByteTrie> kept;
  bool remove_extra_spaces;
};

/// A normalizer is a sequence of steps.
using NormalizerStep = std::variant<UnicodeStep, LowercaseStep, StripMarksStep, PrependStep, ReplaceStep,
                                    StripStep, CharsmapStep>;

/// What is normalized: the begin of the whole text, text behind a special token, or the content of an added
/// token.
enum class TextPart { kBegin, kBehind, kAddedToken };

/// `text` (well-formed UTF-8) after all steps. Throws Error when it grows beyond 64 times its size and 1 MiB.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text, TextPart part);

/// `text` with what the step replaces replaced. Throws Error when that makes more than `limit` bytes.
std::string replace_all(const ReplaceStep& step, std::string_view text, size_t limit);

}  // namespace atom::text
