#pragma once

#include <string>
#include <string_view>

namespace atom::text {

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

/// `text` (well-formed UTF-8) in a normalization form of Unicode (annex 15). Characters that came after
/// Unicode 9, the version that `tokenizers` normalizes by, are left as they are. O(n log n) in the longest
/// run of combining marks.
std::string normalize_unicode(std::string_view text, NormalizationForm form);

/// `text` in lower case, character by character as Rust's char::to_lowercase does it (Unicode 17): without
/// regard to the context, so that a capital sigma never becomes a final one.
std::string lower_case(std::string_view text);

/// `text` without combining marks (general category M, as of Unicode 9).
std::string strip_marks(std::string_view text);

}  // namespace atom::text
