#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "common.h"
#include "engine/generator.h"

namespace atom::cli {

/// The options of `generate` and `chat` that say how to generate.
struct GenerationOptions {
  SamplingParams sampling;
  int64_t max_tokens = 256;
  std::optional<int64_t> context;
  std::optional<KvFormat> kv_format;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  void add_to(CLI::App& command);
  /// Throws UsageError for what is out of range; before the model is loaded, so that nobody waits for it.
  void validate() const;

  /// Tokens of the context: what was asked for, at most (by default) `wanted` and the model's own limit.
  /// Throws Error when more is asked for than the model has.
  int64_t context_for(const Model& model, int64_t wanted) const;

  /// A request without a prompt.
  GenerationRequest request(const Checkpoint& checkpoint, const text::Tokenizer& tokenizer) const;
};

/// prompt_tokens, completion_tokens, the two rates and finish_reason of `result`, to `json`.
void add_statistics(Json& json, const GenerationResult& result);

/// The same as one line of text.
std::string statistics_line(const GenerationResult& result);

}  // namespace atom::cli
