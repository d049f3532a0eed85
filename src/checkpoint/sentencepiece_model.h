#pragma once

#include <string_view>

#include "checkpoint/piece_tokenizer.h"

namespace atom {

/// What a SentencePiece model says besides its pieces.
struct SentencePieceModel {
  PieceModel model;
  int64_t bos_id = -1;
  int64_t eos_id = -1;
  int64_t pad_id = -1;
};

/// Reads a SentencePiece `.model` file (a protobuf message ModelProto, github.com/google/sentencepiece).
/// `source` names it in errors. Throws Error for what is malformed, for models that are not BPE, and for
/// settings that would change ids and are not supported.
SentencePieceModel read_sentencepiece_model(std::string_view bytes, std::string_view source);

}  // namespace atom
