#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace atom::text {

struct EncodeOptions {
  /// Add what the post-processor adds (a begin-of-text token, say). Off for chat templates, which write their
  /// own.
  bool add_special_tokens = true;
  /// Read special tokens written in the text as such; otherwise they are text like any other, which is what
  /// untrusted text wants.
  bool parse_special = true;
};

/// Text to token ids and back, as a Hugging Face `tokenizer.json` describes it. Ids equal those of the PyPI
/// package `tokenizers`; what it supports, and where it differs on purpose, is in docs/tokenizers.md.
/// Whatever else would change ids is refused with an Error that names the field.
///
/// Text that is not UTF-8: every maximal ill-formed subsequence is read as U+FFFD, like Python's
/// errors="replace". Bytes and characters that the vocabulary has no token for are dropped where it has no
/// unknown token, as `tokenizers` does; the log says so once.
///
/// Immutable; every method may be called from any number of threads.
class Tokenizer {
 public:
  /// `source` names the document in errors.
  static Tokenizer from_json(const nlohmann::json& tokenizer_json, std::string_view source);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// O(n log n) in the bytes of the longest word, linear in the number of words.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  /// Ids outside of the vocabulary stand for nothing, as in `tokenizers`. Ill-formed UTF-8 in the result is
  /// replaced by U+FFFD. The same as a Detokenizer gives piece by piece.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  /// The bytes that a token stands for; they need not be whole characters. Where the first token of a text
  /// loses a space, this is what it stands for elsewhere. Empty for ids outside of the vocabulary. An added
  /// token stands for its content as it is written (`tokenizers` reads characters of the byte alphabet in it,
  /// such as an e with an acute accent, as single bytes, and so cannot give the text back).
  std::string_view token_bytes(int32_t id) const;

  /// The token as the vocabulary writes it. Empty for ids outside of the vocabulary.
  std::string_view token_text(int32_t id) const;

  /// One more than the largest id.
  int32_t vocab_size() const;

  /// Id of a token as the vocabulary writes it.
  std::optional<int32_t> id_of(std::string_view token) const;

  /// Whether the id is of an added token that is marked special.
  bool is_special(int32_t id) const;

 private:
  struct Data;
  explicit Tokenizer(std::unique_ptr<Data> data);
  friend class TokenizerReader;
  friend class Detokenizer;
  std::unique_ptr<Data> data_;
};

}  // namespace atom::text
