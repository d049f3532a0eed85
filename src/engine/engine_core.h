#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/runner.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"

namespace atom {

/// The engine without its threads: requests, the queue, the batch, the cache. A step is
///
///   prepare()   plans it and makes room in the cache
///   compute()   the forward pass and sampling
///   apply()     takes the tokens, ends sequences, gives blocks back
///
/// and publish() turns what apply() found into text and tells the listeners. While one thread is in
/// compute(), another may call publish(), add(), cancel(), plan_ahead() and what only asks, and nothing
/// else.
class EngineCore {
 public:
  EngineCore(const Model& model, const text::Tokenizer& tokenizer, const EngineOptions& options);

  /// A request that has been validated; ids ascend. Where it throws (bad_alloc), nothing has changed.
  void add(uint64_t id, Request request, std::shared_ptr<RequestListener> listener);
  void cancel(uint64_t id);

  /// False when there is nothing to compute.
  bool prepare();
  void compute();
  void apply();
  /// Plans the step behind the one in compute(), as if that brought no surprise; prepare() takes the plan
  /// when it did not.
  void plan_ahead();
  void publish();

  /// Ends every request with on_error. Nobody may be in compute(); what a step has computed is dropped.
  void fail_all(const std::string& message);

  /// Whether a request is not finished, or something is yet to be published.
  bool has_work() const { return !requests_.empty(); }
  /// Requests that have never run.
  int64_t queued() const { return queued_; }
  /// The counts that are the core's own.
  void fill(EngineStats& stats) const;
  /// Throws std::logic_error when a block is not owned exactly as often as tables name it. O(blocks).
  void check() const;

 private:
  /// Requests in order of arrival, choices of one in theirs.
  using Age = std::pair<uint64_t, int>;
  static Age age_of(const Sequence& sequence) { return {sequence.request->id, sequence.choice}; }

  /// A sequence's share of the step in progress.
  struct Piece {
    Sequence* sequence;
    int64_t begin;  // its tokens [begin, end)
    int64_t end;
    /// Its queries are [first_query, ...): one for each log-probability of the prompt, then one for each
    /// choice that draws.
    size_t first_query;
    int64_t prompt_logprobs;
  };
  /// What publish() has to tell.
  struct Event {
    ActiveRequest* request;
    Sequence* sequence;  // null: of the request as a whole
    std::optional<int32_t> token;
    TokenLogprob logprob;
    std::optional<FinishReason> finish_reason;
    std::string error;
  };

  SequenceState state_of(const Sequence& sequence) const;
  SchedulerState state() const;
  SchedulerPlan plan();
  void preempt(Sequence& sequence);
  void add_piece(Sequence& sequence, int64_t tokens);
  /// For a piece whose rows begin at `first_row` of the step.
  void add_queries(Piece& piece, int64_t first_row);
  void apply(const Piece& piece);
  void end_prompt(Sequence& leader);
  void take_token(Sequence& sequence, const RowAnswer& answer);
  /// Takes a sequence out of the lists and gives its blocks back.
  void retire(Sequence& sequence);
  void retire_cancelled();
  void fail(ActiveRequest& request, const std::string& message);
  void enqueue(Sequence& sequence);
  /// It has run, or never will.
  void leave_queue(ActiveRequest& request);
  void tell(Event& event);
  /// Forgets requests that have nothing left.
  void sweep();

  const text::Tokenizer* tokenizer_;
  EngineOptions options_;
  PagedKvCache cache_;
  Runner runner_;

  std::unordered_map<uint64_t, std::unique_ptr<ActiveRequest>> requests_;
  std::map<Age, Sequence*> waiting_;
  std::vector<Sequence*> running_;  // oldest first
  std::vector<uint64_t> cancelled_;
  std::vector<Sequence*> stopped_;  // by a stop string that publish() found
  std::vector<uint64_t> ended_;     // requests to look at in sweep()

  // The step in progress.
  std::vector<Piece> pieces_;
  std::vector<Chunk> chunks_;
  std::vector<RowQuery> queries_;
  std::vector<RowAnswer> answers_;
  int64_t rows_ = 0;
  bool in_step_ = false;

  std::vector<Event> events_;
  std::optional<std::pair<SchedulerState, SchedulerPlan>> planned_;

  int64_t queued_ = 0;
  EngineStats counts_;
};

}  // namespace atom
