#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/runner.h"
#include "engine/sampler.h"
#include "text/tokenizer.h"

namespace atom {

/// What is asked of the engine: a prompt to go on from.
struct GenerationRequest {
  std::vector<int32_t> prompt;
  /// Tokens to generate at most; unset: until the context is full.
  std::optional<int64_t> max_tokens;
  SamplingParams sampling;
  /// Generation ends before the first of these that appears in the text.
  std::vector<std::string> stop;
  /// Tokens that end the generation; they are not part of the text.
  std::vector<int32_t> stop_ids;
};

struct GenerationResult {
  std::string text;
  /// What was generated, a stop token included.
  std::vector<int32_t> tokens;
  FinishReason finish_reason = FinishReason::length;

  int64_t prompt_tokens = 0;
  /// Tokens of the prompt whose keys and values were in the cache already.
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  /// Steps of one token each; the first token comes from the prefill.
  int64_t decode_steps = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;

  /// Tokens of the prompt that were computed, in the time until the first token was there.
  double prefill_tokens_per_second() const;
  /// Decode steps in the time from the first token to the last; 0 when there were none.
  double decode_tokens_per_second() const;
};

/// Generates text for one sequence at a time. Keeps the sequence's KV cache: a request whose prompt begins
/// like the previous prompt and answer (the next turn of a chat) computes only what is new.
class Generator {
 public:
  /// Called after every step with the text that has become certain, well-formed UTF-8 and often empty; false
  /// ends the generation.
  using OnText = std::function<bool(std::string_view)>;

  /// `context`: tokens of prompt and answer together, 1 to the model's max_positions. `prefill_chunk`: tokens
  /// of the prompt that one step takes at most. The model and the tokenizer must outlive the generator.
  /// Throws Error.
  Generator(const Model& model, const text::Tokenizer& tokenizer, int64_t context, KvFormat kv_format,
            int64_t prefill_chunk = 512);

  /// Throws Error for an empty prompt, one that leaves no room in the context, a token outside of the
  /// vocabulary, and logits that are not finite, and UsageError for sampling settings out of range. Usable
  /// again after a throw.
  GenerationResult generate(const GenerationRequest& request, const OnText& on_text = {});

  int64_t context() const { return context_; }
  const PagedKvCache& cache() const { return cache_; }

 private:
  /// Brings the cache to hold the whole prompt and returns the residual stream behind its last token, [1,
  /// hidden]; no rows when the caller's function cancelled.
  MatrixView<const float> prefill(std::span<const int32_t> prompt, const OnText& on_text,
                                  GenerationResult& result);
  /// The same behind the last of `tokens`.
  MatrixView<const float> step(std::span<const int32_t> tokens);
  /// The token that `sampler` chooses after a row of `step`.
  int32_t choose(MatrixView<const float> hidden, Sampler& sampler);
  /// Keeps of the cached tokens what `prompt` begins with, its last token excepted; returns how many.
  int64_t keep_common_prefix(std::span<const int32_t> prompt);

  const Model* model_;
  const text::Tokenizer* tokenizer_;
  int64_t context_;
  int64_t prefill_chunk_;
  PagedKvCache cache_;
  BlockTable table_;
  /// The tokens whose keys and values table_ holds.
  std::vector<int32_t> cached_;
  Runner runner_;
};

}  // namespace atom
