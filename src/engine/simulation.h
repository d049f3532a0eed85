#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/scheduler.h"

namespace atom {

/// One request of recorded traffic.
struct SimulatedRequest {
  double arrival = 0;  // seconds
  int64_t prompt_tokens = 1;
  int64_t output_tokens = 1;
};

struct SimulationOptions {
  int64_t block_size = 16;
  int64_t n_blocks = 0;
  int64_t max_running = 64;
  int64_t max_step_tokens = 256;
  /// What a step takes: `step_seconds` and for each of its tokens `token_seconds`.
  double step_seconds = 0.002;
  double token_seconds = 0.0001;
};

struct SimulationResult {
  struct Times {
    double first_token = 0;  // seconds, of the clock that arrivals use
    double finish = 0;
    int64_t tokens = 0;  // generated
  };
  std::vector<Times> requests;
  int64_t steps = 0;
  int64_t preemptions = 0;
  int64_t computed_tokens = 0;  // those computed again included
  int64_t most_running = 0;
  double seconds = 0;  // when the last one finished
};

/// Runs traffic through schedule() without a model: sequences are numbers of tokens and blocks. Checks at
/// every step that the plan keeps its promises (std::logic_error names the one it broke): blocks suffice, no
/// limit is passed, the oldest is not preempted, something is done. Requests that can never fit are the
/// caller's mistake.
SimulationResult simulate(std::span<const SimulatedRequest> traffic, const SimulationOptions& options);

}  // namespace atom
