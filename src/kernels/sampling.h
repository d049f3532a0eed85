#pragma once

#include <cfloat>
#include <cstdint>

#include "base/host_device.h"
#include "kernels/numerics.h"

namespace atom {

/// How the token of one row is drawn from its logits (docs/numerics.md, "Sampling").
struct SampleParams {
  /// 0, or anything else that is not a finite normal number above 0: greedy, the largest logit.
  float temperature = 0.0f;
  /// Keep the fewest most likely tokens whose probabilities add up to this; 1 and more: all.
  float top_p = 1.0f;
  /// Keep tokens at least this likely, as a share of the most likely one's probability; 0: all.
  float min_p = 0.0f;
  /// Keep this many of the most likely tokens; 0 and less: all.
  int32_t top_k = 0;
  /// 64 random bits: the row's place between 0 and 1.
  uint64_t random = 0;

  bool operator==(const SampleParams&) const = default;
};

/// One change of one logit, before a token is drawn: l becomes (l > 0 ? l / divisor : l * divisor) + bias.
struct LogitChange {
  int32_t token = 0;
  float divisor = 1.0f;
  float bias = 0.0f;

  bool operator==(const LogitChange&) const = default;
};

/// Scalar definitions of the op Sample, common to all devices. Probabilities are integers, so that their sums
/// are exact in any order.
namespace sampling {

/// Columns that a row may have: sums of as many weights stay below 2^63.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 23;

/// Below this the weight is 0: e^-27.8 is less than 2^-40.
inline constexpr float kFaintest = -27.8f;

ATOM_HOST_DEVICE inline bool is_greedy(float temperature) {
  return !(temperature >= FLT_MIN && temperature <= FLT_MAX);
}

/// Probability relative to the most likely token's, whose logit is `largest`. Tokens with a larger logit have
/// no smaller one, but for an ulp now and then.
ATOM_HOST_DEVICE inline float relative_probability(float logit, float largest, float inverse_temperature) {
  return numerics::exp_term((logit - largest) * inverse_temperature);
}

/// The same in units of 2^-40, rounded down.
ATOM_HOST_DEVICE inline uint64_t weight_of(float relative_probability) {
  return static_cast<uint64_t>(relative_probability * 0x1p40f);
}

/// The high half of a * b.
ATOM_HOST_DEVICE inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xFFFFFFFFu, a_high = a >> 32, b_low = b & 0xFFFFFFFFu, b_high = b >> 32;
  const uint64_t middle = a_high * b_low + (a_low * b_low >> 32);
  const uint64_t other = a_low * b_high + (middle & 0xFFFFFFFFu);
  return a_high * b_high + (middle >> 32) + (other >> 32);
}

/// top_p of `total`, rounded up, at least 1. top_p < 1.
ATOM_HOST_DEVICE inline uint64_t share_of(float top_p, uint64_t total) {
  const uint64_t share = top_p > 0.0f ? static_cast<uint64_t>(top_p * 0x1p64f) : 0;
  const uint64_t wanted = multiply_high(share, total) + (share * total != 0 ? 1 : 0);
  return wanted > 0 ? wanted : 1;
}

/// Where the draw falls in [0, total): of tokens in ascending order, the first whose weights up to and with
/// its own exceed this.
ATOM_HOST_DEVICE inline uint64_t target_of(uint64_t random, uint64_t total) {
  return multiply_high(random, total);
}

ATOM_HOST_DEVICE inline float changed(float logit, const LogitChange& change) {
  return (logit > 0.0f ? logit / change.divisor : logit * change.divisor) + change.bias;
}

/// A bound of min_p that the most likely token meets.
ATOM_HOST_DEVICE inline float least_relative(float min_p) {
  return min_p < 1.0f ? min_p : 1.0f;
}

}  // namespace sampling
}  // namespace atom
