#include "text/tokenizer_parts.h"

namespace atom::text {
namespace {

constexpr size_t kMaxSteps = 64;

/// Reads the decoders of a sequence one behind the other.
class DecoderReader {
 public:
  void add(const Field& field) {
    require(++steps_ <= kMaxSteps, "{}: expected at most {} steps", field.path(), kMaxSteps);
    const Field type = field.at("type");
    const std::string& name = type.string();
    if (name == "Sequence") {
      field.only({"type", "decoders"});
      const Field list = field.at("decoders");
      for (size_t i = 0; i < list.array().size(); ++i) add(list.at(i));
    } else if (name == "ByteLevel") {
      field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
      if (joined_ || decoder_.byte_fallback) type.bad("no ByteLevel behind what joins tokens");
      decoder_.byte_level = joined_ = true;
    } else if (name == "ByteFallback") {
      field.only({"type"});
      if (joined_ || decoder_.byte_fallback) type.bad("no ByteFallback behind what joins tokens");
      decoder_.byte_fallback = true;
    } else if (name == "Fuse") {
      field.only({"type"});
      joined_ = true;
    } else if (name == "Strip") {
      add_strip(field);
    } else if (name == "Replace" || name == "Metaspace") {
      if (joined_ || decoder_.byte_fallback) type.bad(fmt::format("no {} behind what joins tokens", name));
      if (name == "Replace") {
        decoder_.steps.push_back(read_replace(field));
      } else {
        field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
        decoder_.steps.push_back(MarkToSpace{read_character(field.at("replacement")),
                                             read_prepend_scheme(field) != MetaspaceStep::Prepend::kNever});
      }
    } else {
      type.bad("Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace or Metaspace");
    }
  }

  TokenDecoder take() { return std::move(decoder_); }

 private:
  void add_strip(const Field& field) {
    // "search" is Atom's own, for models of SentencePiece.
    field.only({"type", "content", "start", "stop", "search"});
    constexpr size_t kMost = 1024;
    StripCharacters strip{read_character(field.at("content")), field.at("start").count(kMost),
                          field.at("stop").count(kMost)};
    const Field search = field.at("search");
    strip.marks = !search.is_null();
    if (strip.marks && (search.value() != "marks" || !joined_)) search.bad("\"marks\", behind Fuse");
    if (!joined_) {
      if (decoder_.byte_fallback) field.bad("Fuse between ByteFallback and Strip");
      decoder_.steps.push_back(std::move(strip));
      return;
    }
    if (decoder_.strip.start + decoder_.strip.stop > 0) field.bad("one Strip of the whole text");
    decoder_.strip = std::move(strip);
  }

  TokenDecoder decoder_;
  size_t steps_ = 0;
  bool joined_ = false;  // one text by now, no longer tokens
};

}  // namespace

TokenDecoder read_decoder(const Field& field) {
  DecoderReader reader;
  if (!field.is_null()) {
    reader.add(field);
    return reader.take();
  }
  TokenDecoder decoder;
  decoder.spaced = true;
  return decoder;
}

}  // namespace atom::text
