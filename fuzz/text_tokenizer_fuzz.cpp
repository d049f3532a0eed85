#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/detokenizer.h"
#include "text/json.h"
#include "text/tokenizer.h"

// Input: a tokenizer.json, a zero byte, a text to encode.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string_view text = split == std::string_view::npos ? input : input.substr(split + 1);
  try {
    const auto tokenizer =
        atom::text::Tokenizer::from_json(atom::text::parse_json(input.substr(0, split), "fuzz"), "fuzz");
    const auto ids = tokenizer.encode(text);
    const std::string decoded = tokenizer.decode(ids);
    atom::text::Detokenizer incremental(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += incremental.push(id);
    streamed += incremental.finish();
    if (streamed != decoded) __builtin_trap();
    tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false});
  } catch (const atom::Error&) {
  }
  return 0;
}
