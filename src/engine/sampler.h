#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/sampling.h"

namespace atom {

/// How the next token is chosen from the logits.
struct SamplingParams {
  /// 0: greedy, the largest logit (of equal ones the smallest id).
  float temperature = 0.0f;
  /// Keep this many of the most likely tokens; 0: all.
  int64_t top_k = 0;
  /// Keep the fewest most likely tokens whose probabilities add up to this; 1: all.
  float top_p = 1.0f;
  /// Keep tokens at least this likely, as a share of the most likely one's probability; 0: all.
  float min_p = 0.0f;
  /// Logits of tokens that occurred (in prompt or answer) are divided by this when positive and multiplied by
  /// it when negative (Keskar et al. 2019, section 4.1); 1: off.
  float repetition_penalty = 1.0f;
  /// Taken off the logits of tokens that occurred in the answer: once, and once for every time. -2 to 2.
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  /// Added to the logits of these tokens, each named once; -100 to 100.
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;

  /// Throws UsageError naming the setting that is out of range. With `vocab`, also for a logit_bias of a
  /// token that is not one of so many.
  void validate(std::optional<int64_t> vocab = std::nullopt) const;
};

/// Chooses the tokens of one sequence. The steps, in this order: repetition penalty; logit bias, frequency
/// and presence penalty, added up and added; the mask; greedy choice where the temperature is 0, else
/// division by the temperature, top-k, top-p of what top-k left, min-p, and a draw from what is left in
/// proportion to its probability. A sampler says what is to be done (a RowQuery's draw), the device that has
/// the logits does it (RowEvaluator). One random number a token, the next one of the seed: the tokens depend
/// on the seed and the logits, never on what else is in the batch or on the device.
class Sampler {
 public:
  /// Throws UsageError as `validate` does.
  explicit Sampler(const SamplingParams& params);

  /// Counts a token of the prompt as having occurred. `accept` does so for the sequence's own.
  void observe(int32_t token);

  /// How the next token is to be drawn.
  SampleParams next() const;
  /// What penalties and bias make of the logits before; at most one change a token. Valid until the next call
  /// of a function that is not const.
  std::span<const LogitChange> changes() const { return changes_; }
  /// The tokens that may be drawn next: bit t % 32 of word t / 32. Empty: all.
  std::span<const uint32_t> mask() const { return mask_; }
  /// `mask` [(vocab + 31) / 32], or empty; stays until the next one.
  void set_mask(std::vector<uint32_t> mask) { mask_ = std::move(mask); }

  /// The token that came of it. Throws Error for -1: no logit was finite.
  void accept(int32_t token);

 private:
  /// What is known of a token that has a change, at the same place.
  struct Seen {
    int64_t count = 0;  // in the answer
    float bias = 0.0f;  // of the request
  };

  /// The place of a token's change, a new one that changes nothing where it has none.
  size_t place_of(int32_t token);

  SamplingParams params_;
  uint64_t accepted_ = 0;
  std::vector<LogitChange> changes_;
  std::vector<Seen> seen_;
  std::unordered_map<int32_t, size_t> places_;
  std::vector<uint32_t> mask_;
};

}  // namespace atom
