#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/sampler.h"

namespace atom {

/// What is asked of the engine: `n` texts that go on from one prompt.
struct Request {
  std::vector<int32_t> prompt;
  /// Tokens to generate at most, for each choice; unset: until the context is full; 0: the prompt alone is
  /// computed, for its log-probabilities.
  std::optional<int64_t> max_tokens;
  /// Choice i draws with the seed `sampling.seed + i`.
  SamplingParams sampling;
  int n = 1;
  /// A choice ends before the first of these that appears in its text.
  std::vector<std::string> stop;
  /// Tokens that end a choice (end of text, and what the caller adds); not part of the text.
  std::vector<int32_t> stop_ids;
  /// Log-probabilities of every generated token, and of so many of the most likely ones at its place; unset:
  /// none at all. At most kMaxTopLogprobs.
  std::optional<int> logprobs;
  /// The same of the prompt's tokens from the second on.
  std::optional<int> prompt_logprobs;
  /// Whether special tokens are left out of the text.
  bool skip_special_tokens = true;
};

inline constexpr int kMaxTopLogprobs = 20;

enum class FinishReason : uint8_t {
  stop,      // a stop token or stop string
  length,    // max_tokens, or the context is full
  cancelled  // the caller said so
};

/// "stop", "length", "cancelled".
std::string_view name_of(FinishReason reason);

/// log p of a token under the model's own distribution: the softmax of the logits, before penalties, bias and
/// temperature.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  /// The most likely tokens at this place, most likely first, of equal ones the smallest id.
  std::vector<std::pair<int32_t, float>> top;
};

/// The prompt has been computed; the first thing that a request hears.
struct PromptResult {
  int64_t prompt_tokens = 0;
  /// Of these, tokens whose keys and values were in the cache already.
  int64_t cached_tokens = 0;
  /// Of the tokens from the second on, where asked for.
  std::vector<TokenLogprob> logprobs;
};

/// What a step adds to one choice.
struct Delta {
  int choice = 0;
  /// Well-formed UTF-8 that has become certain; often empty.
  std::string text;
  /// The tokens of this step, a stop token included.
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  /// Set with the last delta of the choice.
  std::optional<FinishReason> finish_reason;
};

/// Who listens to a request. Called on the engine's thread, which waits meanwhile: be quick, and do not
/// throw. After the deltas with finish_reason of all choices, or on_error, nothing is called any more.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  virtual void on_prompt(PromptResult result) = 0;
  virtual void on_delta(Delta delta) = 0;
  /// The request can't be finished: the logits were not finite, or the engine failed or was closed.
  virtual void on_error(std::string message) = 0;
};

}  // namespace atom
