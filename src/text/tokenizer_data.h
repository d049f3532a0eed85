#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace atom::text {

/// What a Tokenizer consists of. Private to tokenizer.cpp, to detokenizer.cpp, and to tokenizer_json.cpp,
/// which fills it.
struct Tokenizer::Data {
  struct Token {
    std::string text;   // as the vocabulary writes it
    std::string bytes;  // what it stands for, behind other tokens
    bool present = false;
    bool special = false;
    bool added = false;
    bool byte = false;  // stands for one byte by byte fallback
  };

  std::string source;
  std::vector<Token> tokens;  // by id
  std::unordered_map<std::string, int32_t> ids;
  AddedTokens added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> steps;
  std::optional<Bpe> model;
  std::vector<int32_t> prefix;  // what the post-processor puts in front
  std::vector<int32_t> suffix;  // and behind
  TokenDecoder decoder;
  bool first_token_differs =
      false;  // the first token of a text may stand for something else than its `bytes`
  mutable std::atomic<bool> warned_of_dropped{false};
};

}  // namespace atom::text
