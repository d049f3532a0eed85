#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include <CLI/CLI.hpp>

#include "common.h"

namespace atom::cli {

/// A text to calibrate on or to evaluate: a plain text file, or a JSON or JSONL file of documents or
/// conversations.
struct DocumentOptions {
  std::filesystem::path file;
  int64_t skip = 0;
  std::optional<int64_t> limit;
};

/// One stream of tokens, at most `enough` (INT64_MAX: all there are): a plain text in one piece; of
/// documents, one after the other, conversations through the model's chat template. Throws Error for files
/// that cannot be read or hold nothing, and for `skip` on plain text, which is a single document.
std::vector<int32_t> read_tokens(const DocumentOptions& options, const Checkpoint& checkpoint,
                                 const text::Tokenizer& tokenizer, int64_t enough);

}  // namespace atom::cli
