#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace atom::text {

/// Turns bytes that arrive in pieces into well-formed UTF-8: holds back the begin of a character until it is
/// complete, and replaces what cannot become one by U+FFFD. All that comes out together equals lossy_utf8 of
/// all that went in.
class Utf8Assembler {
 public:
  /// What can be said for certain by now; may be empty.
  std::string push(std::string_view bytes);
  /// What was held back, as U+FFFD. The assembler starts anew.
  std::string finish();

 private:
  std::string held_;  // at most 3 bytes
};

/// Turns tokens that arrive one at a time into text, never with broken UTF-8. All that comes out together
/// equals Tokenizer::decode of all ids. A run of byte tokens comes out when the next other token does, since
/// every byte of it counts for whether it is text.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = false);

  std::string push(int32_t id);
  std::string finish();

 private:
  std::string take_byte_run();
  /// The bytes to leave out of the begin of a token that the text begins with.
  size_t take_mark(std::string_view piece, std::string_view bytes);
  std::string strip(std::string text);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  bool first_ = true;     // no token yet
  std::string byte_run_;  // byte tokens since the last other token
  Utf8Assembler assembler_;
  size_t strip_start_ = 0;  // characters that may still be removed from the begin
  std::string held_end_;    // characters that are removed should the text end here
};

/// Watches streamed text for stop strings. Gives on at once all text that no stop string can reach back to,
/// and nothing of the stop string that matched or behind it. Of several, the one that is complete first
/// counts (the longest of those complete at once), so that the result does not depend on how the text was cut
/// into pieces.
class StopMatcher {
 public:
  /// Empty stop strings are left out.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Text that may be shown. Empty for good once a stop string has matched.
  std::string push(std::string_view text);
  /// The stream has ended: what was held back, unless a stop string has matched.
  std::string finish();

  bool matched() const { return matched_.has_value(); }
  /// The stop string that matched.
  const std::optional<std::string>& match() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;  // a proper prefix of some stop string
  std::optional<std::string> matched_;
};

}  // namespace atom::text
