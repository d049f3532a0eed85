#include "checkpoint/sentencepiece_model.h"

#include <string>

#include "base/error.h"
#include "checkpoint/protobuf_reader.h"

namespace atom {
namespace {

// Ids index tables; SentencePiece itself makes far fewer.
constexpr size_t kMaxPieces = size_t{1} << 22;

Piece read_piece(std::string_view bytes, std::string_view source, size_t id) {
  Piece piece;
  ProtobufReader in(bytes, source);
  while (in.next()) {
    if (in.field() == 1) piece.text = in.bytes();
    if (in.field() == 2) piece.score = in.number();
    if (in.field() == 3) {
      require(in.integer() >= 1 && in.integer() <= 6, "{}: piece {}: expected a type from 1 to 6, found {}",
              source, id, in.integer());
      piece.type = static_cast<PieceType>(in.integer());
    }
  }
  require(!piece.text.empty(), "{}: piece {} is empty", source, id);
  return piece;
}

std::string_view model_type_name(uint64_t type) {
  constexpr std::string_view kNames[] = {"UNIGRAM", "BPE", "WORD", "CHAR"};
  return type >= 1 && type <= 4 ? kNames[type - 1] : "unknown";
}

void read_trainer(std::string_view bytes, std::string_view source, SentencePieceModel& out) {
  uint64_t type = 1;
  out.bos_id = 1;
  out.eos_id = 2;
  out.model.unknown_surface = " \xE2\x81\x87 ";
  ProtobufReader in(bytes, source);
  const auto id = [&] { return static_cast<int64_t>(static_cast<int32_t>(in.integer())); };
  while (in.next()) {
    switch (in.field()) {
      case 3:
        type = in.integer();
        break;
      case 24:
        require(
            !in.boolean(),
            "{}: trainer_spec.treat_whitespace_as_suffix: expected false, found true, which is not supported",
            source);
        break;
      case 35:
        out.model.byte_fallback = in.boolean();
        break;
      case 41:
        out.bos_id = id();
        break;
      case 42:
        out.eos_id = id();
        break;
      case 43:
        out.pad_id = id();
        break;
      case 44:
        out.model.unknown_surface = in.bytes();
        break;
      default:
        break;
    }
  }
  require(type == 2, "{}: trainer_spec.model_type: expected BPE, found {}, which is not supported", source,
          model_type_name(type));
}

void read_normalizer(std::string_view bytes, std::string_view source, PieceModel& model) {
  ProtobufReader in(bytes, source);
  while (in.next()) {
    switch (in.field()) {
      case 2:
        model.charsmap = in.bytes();
        break;
      case 3:
        model.add_dummy_prefix = in.boolean();
        break;
      case 4:
        model.remove_extra_whitespaces = in.boolean();
        break;
      case 5:
        require(in.boolean(),
                "{}: normalizer_spec.escape_whitespaces: expected true, found false, which is not supported",
                source);
        break;
      default:
        break;
    }
  }
}

void check_denormalizer(std::string_view bytes, std::string_view source) {
  ProtobufReader in(bytes, source);
  while (in.next()) {
    require(in.field() != 2 || in.bytes().empty(),
            "{}: denormalizer_spec.precompiled_charsmap: expected none, as it is not supported", source);
  }
}

}  // namespace

SentencePieceModel read_sentencepiece_model(std::string_view bytes, std::string_view source) {
  SentencePieceModel out;
  out.model.source = source;
  out.model.keeps_user_defined = true;
  out.model.remove_extra_whitespaces = true;  // the defaults of the format
  ProtobufReader in(bytes, source);
  bool has_trainer = false;
  while (in.next()) {
    switch (in.field()) {
      case 1:
        require(out.model.pieces.size() < kMaxPieces, "{}: expected at most {} pieces", source, kMaxPieces);
        out.model.pieces.push_back(read_piece(in.bytes(), source, out.model.pieces.size()));
        break;
      case 2:
        read_trainer(in.bytes(), source, out);
        has_trainer = true;
        break;
      case 3:
        read_normalizer(in.bytes(), source, out.model);
        break;
      case 5:
        check_denormalizer(in.bytes(), source);
        break;
      default:
        break;
    }
  }
  require(!out.model.pieces.empty() && has_trainer, "{}: expected a SentencePiece model, found no {}", source,
          has_trainer ? "pieces" : "trainer_spec");
  const auto count = static_cast<int64_t>(out.model.pieces.size());
  for (int64_t* id : {&out.bos_id, &out.eos_id, &out.pad_id}) {
    if (*id >= count) *id = -1;
  }
  return out;
}

}  // namespace atom
