#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "checkpoint/json.h"
#include "checkpoint/sentencepiece_model.h"
#include "checkpoint/tekken_tokenizer.h"
#include "text/tokenizer.h"

// Input: a SentencePiece model, or a tekken.json where it begins with a brace; then, behind the last zero
// byte, a text to encode.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.rfind('\0');
  const std::string_view file = input.substr(0, end);
  const std::string_view text = end == std::string_view::npos ? "" : input.substr(end + 1);
  try {
    const nlohmann::ordered_json document =
        file.starts_with("{")
            ? atom::make_tekken_tokenizer(atom::parse_json(file, "fuzz"), "fuzz")
            : atom::make_piece_tokenizer(atom::read_sentencepiece_model(file, "fuzz").model);
    const auto tokenizer = atom::text::Tokenizer::from_json(nlohmann::json(document), "fuzz");
    tokenizer.decode(tokenizer.encode(text));
    tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
  } catch (const atom::Error&) {
  }
  return 0;
}
