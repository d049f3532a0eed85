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

/// One stream of tokens: a plain text in one piece; of documents, one after the other, conversations through
/// the model's chat template. Reading documents stops where there are `enough` tokens. Throws Error for files
/// that cannot be read or hold nothing, UsageError for skip and limit on plain text.
std::vector<int32_t> read_tokens(const DocumentOptions& options, const Checkpoint& checkpoint,
                                 const text::Tokenizer& tokenizer, int64_t enough);

}  // namespace atom::cli
