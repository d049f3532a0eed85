#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atom {

/// Types of pieces; the numbers are those in SentencePiece's files and in GGUF.
enum class PieceType : int64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

/// A SentencePiece model of type BPE (Kudo and Richardson 2018), whatever file it came in.
struct PieceModel {
  std::string source;         ///< for errors
  std::vector<Piece> pieces;  ///< by id; each text once
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  /// Text behind a special token gets a space in front as the begin of the whole text does: what
  /// `transformers` calls legacy, and llama.cpp does.
  bool prefix_behind_special = true;
  /// User-defined pieces are kept from normalization, and found in normalized text by what they are, as
  /// SentencePiece does. Otherwise a space in them is one of the text, as in files made for llama.cpp.
  bool keeps_user_defined = false;
  std::string charsmap;         ///< precompiled normalization, or empty
  std::string unknown_surface;  ///< what the unknown token is written as in text; empty: as the piece
};

/// The tokenizer.json of a model, without a post-processor. The score of what a merge makes decides which
/// comes first, of equal scores the leftmost, as in SentencePiece; user-defined pieces are cut out of the
/// text before; unused pieces are taken apart again. Control and unknown pieces become special tokens, which
/// SentencePiece itself never reads from text. Throws Error naming `source` for pieces that come twice,
/// scores that are not numbers and tables that do not fit.
nlohmann::ordered_json make_piece_tokenizer(const PieceModel& model);

}  // namespace atom
