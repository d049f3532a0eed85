#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/request.h"
#include "kvcache/paged_cache.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace atom {

struct EngineOptions {
  /// Tokens of a prompt and its answer together; at most the model's max_positions.
  int64_t context = 0;
  KvFormat kv_format = KvFormat::int4;
  int64_t block_size = 16;
  /// Blocks of the cache, shared by all sequences; at least enough for one of `context` tokens.
  int64_t n_blocks = 0;
  /// Sequences that run at once, at most.
  int64_t max_running = 64;
  /// Tokens of a step at most, decode and prefill together; more than max_running.
  int64_t max_step_tokens = 256;
  /// Requests that wait beside those that can run at once, at most; more are refused.
  int64_t max_waiting = 256;
  bool prefix_caching = true;
  /// Check after every step that each block is owned exactly as often as tables name it.
  bool check_blocks = false;
};

struct Submission {
  Request request;
  std::shared_ptr<RequestListener> listener;
};

/// The queue is full (429 of a server).
class Overloaded : public Error {
 public:
  using Error::Error;
};

/// A prompt that does not fit (code context_length_exceeded of OpenAI's errors).
class ContextExceeded : public Error {
 public:
  using Error::Error;
};

/// The engine takes no more requests: it drains, or it has failed (503).
class Unavailable : public Error {
 public:
  using Error::Error;
};

/// Counts since the engine was made, and what is there now.
struct EngineStats {
  int64_t running = 0;        // sequences in the batch
  int64_t waiting = 0;        // sequences that wait for it
  int64_t blocks = 0;         // of the cache
  int64_t free_blocks = 0;    // blank or cached
  int64_t cached_blocks = 0;  // free, and known to the prefix index
  int64_t cache_bytes = 0;
  int64_t bytes_per_token = 0;        // of the cache
  int64_t bytes_per_token_f16 = 0;    // of the same cache in FP16
  uint64_t requests = 0;              // accepted
  uint64_t refused = 0;               // Overloaded
  uint64_t prompt_tokens = 0;         // of requests whose prompt has been computed
  uint64_t cached_prompt_tokens = 0;  // of these, found by the prefix index
  uint64_t generated_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t cancelled = 0;  // requests
  uint64_t steps = 0;
  uint64_t step_tokens = 0;    // of all steps
  double step_seconds = 0;     // from the begin of a step to the begin of the next, while there is work
  double forward_seconds = 0;  // of these, in the model's forward pass and sampling
  bool failed = false;         // a step ended in an error: no request can be taken any more
};

/// Continuous batching over one model and one paged cache. At every step a scheduler (scheduler.h) packs
/// decode tokens and pieces of prompts into one batch; a thread computes it while another turns the tokens of
/// the step before into text, tells listeners, takes new requests and plans the next step.
///
/// submit(), cancel() and stats() may be called from any thread, also from listeners.
class Engine {
 public:
  /// Model and tokenizer must outlive the engine. Throws Error for options out of range and when there is no
  /// memory for the cache.
  Engine(const Model& model, const text::Tokenizer& tokenizer, const EngineOptions& options);
  /// Ends what is going on (listeners hear on_error).
  ~Engine();

  /// Queues requests, all of them or none; their listeners hear of them from the next step on. Returns their
  /// numbers, for cancel(). Throws Error for an empty prompt, a token outside of the vocabulary, n out of
  /// range, more requests than may wait and run; ContextExceeded for a prompt that leaves no room for a
  /// token; UsageError for sampling settings out of range; Overloaded; Unavailable.
  std::vector<uint64_t> submit(std::vector<Submission> requests);
  /// One of them.
  uint64_t submit(Request request, std::shared_ptr<RequestListener> listener);

  /// Ends a request; its blocks are free at the end of the step in progress. The listener hears the choices
  /// end as cancelled, unless they have ended before. Unknown numbers are passed over.
  void cancel(uint64_t id);

  /// Refuses further requests from now on (Unavailable); those accepted go on.
  void drain();
  /// Whether nothing runs or waits.
  bool idle() const;

  EngineStats stats() const;
  /// Why the engine has stopped for good; empty while it works.
  std::string failure() const;
  const EngineOptions& options() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom
