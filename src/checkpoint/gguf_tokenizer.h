#pragma once

#include <nlohmann/json.hpp>

#include "checkpoint/gguf_file.h"

namespace atom {

/// The tokenizer of a GGUF file as a Hugging Face tokenizer.json document: byte-level BPE
/// (tokenizer.ggml.model "gpt2") or a SentencePiece BPE model ("llama"). Throws Error naming the key for
/// another model, a pre-tokenizer Atom does not know, or bad tables.
nlohmann::ordered_json make_tokenizer_json(const GgufFile& file);

/// The Hugging Face tokenizer_config.json: special tokens, chat template, context length.
nlohmann::ordered_json make_tokenizer_config(const GgufFile& file);

}  // namespace atom
