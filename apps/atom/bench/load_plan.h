#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "../common.h"

/// What is sent when: the traffic of a measurement, the same for every endpoint.
namespace atom::cli {

/// Where prompts come from and how requests are spread over time.
struct TrafficOptions {
  int64_t requests = 64;
  /// Closed loop: requests in flight. Without a rate.
  int64_t concurrency = 32;
  /// Open loop: requests a second, at random moments (a Poisson process). 0: closed loop.
  double rate = 0;
  /// At most one of the two; neither: prompts of `prompt_tokens` words.
  std::filesystem::path sharegpt;
  std::filesystem::path lengths;
  int64_t prompt_tokens = 128;
  /// Tokens to generate; with `lengths` a bound on what the file says (0: none).
  int64_t max_tokens = 0;
  /// Conversations that begin with more bytes than that are left out.
  int64_t max_prompt_bytes = 1 << 20;
  /// Words that every prompt begins with.
  int64_t shared_prefix = 0;
  /// Prompts are random token ids below this instead of words (0: words).
  int64_t random_ids = 0;
  uint64_t seed = 0;

  void check() const;
};

struct PlannedRequest {
  /// Seconds after the start; 0 in a closed loop.
  double due = 0;
  /// A prompt as text, or as token ids.
  std::string text;
  std::vector<int32_t> ids;
  int64_t max_tokens = 0;
};

/// The requests of each of `rounds`: other prompts every time, so that no cache knows them. `warm_up`
/// requests more stand in front of every round, due at once. Throws Error for files that
/// cannot be read or hold too few conversations.
std::vector<std::vector<PlannedRequest>> plan_traffic(const TrafficOptions& options, int64_t rounds,
                                                      int64_t warm_up);

}  // namespace atom::cli
