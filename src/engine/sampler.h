#pragma once

#include <cstdint>
#include <span>
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
  /// Added to logits; -100 to 100 each, a token once.
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;

  /// Throws UsageError naming the setting that is out of range.
  void validate() const;
};

/// Chooses the tokens of one sequence. The steps, in this order: repetition penalty; greedy choice where the
/// temperature is 0, else division by the temperature, top-k, top-p of what top-k left, min-p, and a draw
/// from what is left in proportion to its probability. All but the penalty are the op Sample, on the device
/// that has the logits. One random number a token, the next one of the seed: the tokens depend on the seed
/// and the logits, never on what else is in the batch or on the device.
class Sampler {
 public:
  /// Throws UsageError as `validate` does.
  explicit Sampler(const SamplingParams& params);

  /// Counts a token of the prompt as having occurred. `accept` does so for the sequence's own.
  void observe(int32_t token);

  /// Whether the logits have to go through `penalize` before the op sees them.
  bool penalizes() const { return params_.repetition_penalty != 1.0f; }
  void penalize(std::span<float> logits) const;

  /// How the next token is to be drawn.
  SampleParams next() const;
  /// The token that came of it. Throws Error for -1: no logit was finite.
  void accept(int32_t token);

  /// All of it on the host; `logits` [vocab] is changed. Throws Error as `accept` does.
  int32_t sample(std::span<float> logits);

 private:
  SamplingParams params_;
  uint64_t accepted_ = 0;
  std::vector<bool> seen_;
  std::vector<int32_t> seen_list_;
};

}  // namespace atom
