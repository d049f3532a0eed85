#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "server/http.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/submitter.h"

namespace atom::server {

struct GenerationOptions {
  /// What tells the response from all others.
  std::string id;
  std::string model;
  bool stream = false;
  bool include_usage = false;
  std::chrono::steady_clock::time_point arrival;
};

/// Gives the requests to the engine, all or none of them, and answers the exchange with what comes of them,
/// as `format` writes it: whole, or as a stream. A client that goes cancels them. All requests have the same
/// n.
///
/// Throws what Engine::submit throws; then nothing has been answered. Submitter and metrics must outlive the
/// exchange and the engine's interest in the requests. `offsets` counts characters of a new text.
void start_generation(Submitter& submitter, Metrics& metrics, std::vector<Request> requests,
                      const TextOffsets& offsets, GenerationOptions options,
                      std::unique_ptr<ReplyFormat> format, std::shared_ptr<Exchange> exchange);

}  // namespace atom::server
