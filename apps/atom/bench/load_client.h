#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "http_client.h"
#include "load_plan.h"

/// Sends planned traffic to an OpenAI endpoint and records what comes back when.
namespace atom::cli {

struct Endpoint {
  Url url;
  std::string model;
};

/// What requests say beside their prompt.
struct RequestOptions {
  bool chat = false;
  double temperature = 0;
  /// Of sampling; sent where the temperature is not 0.
  uint64_t seed = 0;
  bool ignore_eos = false;
  std::string api_key;
  /// Seconds from the sending of a request to the end of its response.
  double timeout = 600;
};

/// One request as the client saw it. Times are seconds since the start of its round.
struct Outcome {
  double sent = 0;
  double finished = 0;
  /// When each piece of text came.
  std::vector<double> pieces;
  /// As `usage` says; -1: it did not.
  int64_t prompt_tokens = -1;
  int64_t completion_tokens = -1;
  int64_t cached_tokens = 0;
  unsigned status = 0;
  std::string finish_reason;
  /// Empty: the stream came whole.
  std::string error;

  bool completed() const { return error.empty(); }
  /// Tokens generated: pieces where the endpoint does not count.
  int64_t output_tokens() const;
};

struct LoadResult {
  /// Of requests that ended, in the order in which they did.
  std::vector<Outcome> outcomes;
  /// Ctrl-C ended the round; requests that were in flight then.
  bool interrupted = false;
  int64_t unfinished = 0;
  ConnectionCounts connections;
};

/// Fills in `model` with the first that /v1/models lists. Throws Error naming the URL, or Interrupted.
void find_model(Endpoint& endpoint, const RequestOptions& options);

/// Sends `requests` when they are due, or as closed loop with `concurrency` in flight (0: open loop).
LoadResult run_load(const Endpoint& endpoint, const std::vector<PlannedRequest>& requests,
                    int64_t concurrency, const RequestOptions& options);

}  // namespace atom::cli
