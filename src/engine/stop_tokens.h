#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "text/tokenizer.h"

namespace atom {

/// The tokens that end a text by the checkpoint's own word, ascending: `eos_token` of tokenizer_config.json
/// and `eos_token_id` (a number or a list) of config.json. Empty when neither says anything. Throws Error for
/// fields of another type and ids outside of the vocabulary.
std::vector<int32_t> end_of_text_ids(const Checkpoint& checkpoint, const text::Tokenizer& tokenizer);

}  // namespace atom
