#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text {

/// A compiled PCRE2 pattern (UTF-8, Unicode properties, JIT where there is one). Immutable: any number of
/// threads may search with it at once.
class Regex {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  /// `field` names where the pattern comes from. Throws Error when it does not compile.
  Regex(std::string_view pattern, std::string field);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Appends all matches in `text` (well-formed UTF-8) in order, not overlapping; an empty match right behind
  /// the previous match is passed over. Throws Error when the pattern backtracks beyond PCRE2's limits,
  /// or takes far longer on the text than any that cuts words does.
  void find_all(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

/// `pattern` in the dialect that `tokenizer.json` files are written in (Oniguruma, Ruby syntax), rewritten so
/// that PCRE2 splits alike: \s, \d, \w and \h get Oniguruma's meaning, \p{..} gets the code points of Unicode
/// 16, `X{n,m}+` is a repeated group instead of a possessive one. Throws Error naming `field` for constructs
/// that mean something else in PCRE2 or that are not supported.
std::string translate_oniguruma(std::string_view pattern, std::string_view field);

/// `text` with everything that has a meaning in a pattern escaped.
std::string escape_regex(std::string_view text);

}  // namespace atom::text
