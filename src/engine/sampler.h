#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

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
  uint64_t seed = 0;

  /// Throws UsageError naming the setting that is out of range.
  void validate() const;
};

/// Chooses the tokens of one sequence. The steps, in this order: repetition penalty; greedy choice where the
/// temperature is 0, else division by the temperature, top-k, top-p of what top-k left, min-p, and a draw
/// from what is left in proportion to its probability. One random number a token, from the sequence's own
/// generator: the tokens depend on the seed and the logits, never on what else is in the batch.
class Sampler {
 public:
  /// Throws UsageError as `validate` does.
  explicit Sampler(const SamplingParams& params);

  /// Counts a token of the prompt as having occurred. `sample` does so for its own.
  void observe(int32_t token);

  /// The next token; `logits` [vocab] is changed. Logits that are not numbers are never chosen; throws Error
  /// when none is left.
  int32_t sample(std::span<float> logits);

 private:
  struct Candidate {
    float relative;
    int32_t id;
  };

  /// Both take log-probabilities relative to the most likely token's.
  int32_t draw_from_all(std::span<const float> relative);
  int32_t draw_filtered(std::span<const float> relative);
  void keep_top_k();
  void keep_top_p();
  /// An index into weights_, in proportion to them.
  size_t draw();

  SamplingParams params_;
  Random random_;
  std::vector<bool> seen_;
  std::vector<int32_t> seen_list_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

}  // namespace atom
