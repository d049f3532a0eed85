#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/engine.h"

namespace atom::server {

/// What /metrics shows, in Prometheus' text format. Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  /// A response has been sent. `route` and status become labels: a route is one of a fixed set.
  void count_response(std::string_view route, unsigned status);

  /// Of one of the engine's requests: seconds from its arrival to its first token.
  void first_token(double seconds);
  /// Of one choice: seconds between two of its tokens, on average.
  void token_time(double seconds);
  /// Of one of the engine's requests that has come to its end.
  void finished(double seconds, int64_t prompt_tokens, int64_t generated_tokens);

  /// All of it and the engine's counts.
  std::string text(const EngineStats& stats) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom::server
