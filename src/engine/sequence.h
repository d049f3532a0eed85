#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/sampler.h"
#include "kvcache/paged_cache.h"
#include "text/detokenizer.h"

namespace atom {

struct ActiveRequest;

/// One choice of a request, as the engine works on it.
struct Sequence {
  Sequence(ActiveRequest& request, int choice, PagedKvCache& cache, const text::Tokenizer& tokenizer);

  enum class State : uint8_t {
    unborn,   // its prompt is being computed by choice 0
    waiting,  // in the queue: for the first time, or preempted
    running,
    done  // no blocks, in no list
  };

  /// How many tokens the whole may have.
  int64_t limit() const { return limit_; }

  ActiveRequest* request;
  int choice;
  State state = State::unborn;
  /// Prompt and answer.
  std::vector<int32_t> tokens;
  /// Holds keys and values of a beginning of `tokens`.
  BlockTable table;
  Sampler sampler;
  /// The step in progress draws its next token.
  bool drawing = false;

  // The text, which is made later than the tokens.
  text::Detokenizer detokenizer;
  text::StopMatcher stops;
  /// Its last delta has been told.
  bool told = false;

 private:
  int64_t limit_;
};

/// A request from when it is accepted until its listener has heard the last of it.
struct ActiveRequest {
  ActiveRequest(uint64_t id, Request request, int64_t context, std::shared_ptr<RequestListener> listener,
                PagedKvCache& cache, const text::Tokenizer& tokenizer);

  /// Whether log-probabilities of the prompt are yet to be computed.
  bool wants_prompt_logprobs() const;

  uint64_t id;
  Request request;
  std::shared_ptr<RequestListener> listener;
  /// Tokens of prompt and answer at most.
  int64_t limit;
  std::vector<std::unique_ptr<Sequence>> choices;
  /// It has been admitted, so it counts as waiting no more.
  bool admitted = false;
  /// The prompt has been computed, and the choices have their own tables.
  bool prompt_computed = false;
  int64_t cached_tokens = 0;
  std::vector<TokenLogprob> prompt_logprobs;
  /// The caller wants no more of it.
  bool cancelled = false;
  /// Its listener has heard on_error.
  bool failed = false;
};

}  // namespace atom
