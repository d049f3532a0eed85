#include "engine/engine_core.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.h"

namespace atom {
namespace {

int64_t size_of(const std::vector<int32_t>& tokens) {
  return static_cast<int64_t>(tokens.size());
}

TokenLogprob logprob_of(const RowAnswer& answer, int32_t token) {
  return {token, answer.logprob, answer.top};
}

}  // namespace

EngineCore::EngineCore(const Model& model, const text::Tokenizer& tokenizer, const EngineOptions& options)
    : tokenizer_(&tokenizer),
      options_(options),
      cache_(model.kv_shape(), options.kv_format, options.n_blocks, options.block_size, model.device().memory,
             options.prefix_caching),
      runner_(model, cache_) {}

// ---- Requests come and go.

void EngineCore::add(uint64_t id, Request request, std::shared_ptr<RequestListener> listener) {
  auto active = std::make_unique<ActiveRequest>(id, std::move(request), options_.context, std::move(listener),
                                                cache_, *tokenizer_);
  Sequence& leader = *active->choices[0];
  const auto place = requests_.emplace(id, std::move(active)).first;
  try {
    enqueue(leader);
  } catch (...) {
    requests_.erase(place);
    throw;
  }
  ++queued_;
}

void EngineCore::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end() || found->second->cancelled) return;
  found->second->cancelled = true;
  cancelled_.push_back(id);
}

void EngineCore::enqueue(Sequence& sequence) {
  sequence.state = Sequence::State::waiting;
  waiting_.emplace(age_of(sequence), &sequence);
}

void EngineCore::leave_queue(ActiveRequest& request) {
  if (!request.admitted) --queued_;
  request.admitted = true;
}

void EngineCore::retire(Sequence& sequence) {
  if (sequence.state == Sequence::State::waiting) waiting_.erase(age_of(sequence));
  if (sequence.state == Sequence::State::running) std::erase(running_, &sequence);
  sequence.state = Sequence::State::done;
  sequence.table.clear();
  ended_.push_back(sequence.request->id);
}

void EngineCore::retire_cancelled() {
  for (Sequence* sequence : stopped_) {
    if (sequence->state != Sequence::State::done) retire(*sequence);
  }
  stopped_.clear();
  for (const uint64_t id : cancelled_) {
    const auto found = requests_.find(id);
    if (found == requests_.end()) continue;
    ActiveRequest& request = *found->second;
    bool any = false;
    for (const auto& choice : request.choices) {
      if (choice->state == Sequence::State::done) continue;
      retire(*choice);
      any = true;
      events_.push_back({&request, choice.get(), {}, {}, FinishReason::cancelled, {}});
    }
    leave_queue(request);
    if (any) ++counts_.cancelled;
  }
  cancelled_.clear();
}

void EngineCore::fail(ActiveRequest& request, const std::string& message) {
  for (const auto& choice : request.choices) {
    if (choice->state != Sequence::State::done) retire(*choice);
  }
  leave_queue(request);
  request.failed = true;
  ended_.push_back(request.id);
  events_.push_back({&request, nullptr, {}, {}, {}, message});
}

void EngineCore::fail_all(const std::string& message) {
  in_step_ = false;
  pieces_.clear();
  std::vector<ActiveRequest*> requests;
  for (const auto& [id, request] : requests_) requests.push_back(request.get());
  for (ActiveRequest* request : requests) fail(*request, message);
  cancelled_.clear();
  stopped_.clear();
  publish();
}

void EngineCore::sweep() {
  for (const uint64_t id : ended_) {
    const auto found = requests_.find(id);
    if (found == requests_.end()) continue;
    const auto& choices = found->second->choices;
    if (std::all_of(choices.begin(), choices.end(),
                    [](const auto& choice) { return choice->state == Sequence::State::done; })) {
      requests_.erase(found);
    }
  }
  ended_.clear();
}

// ---- A step.

SequenceState EngineCore::state_of(const Sequence& sequence) const {
  SequenceState state;
  state.tokens = size_of(sequence.tokens) + (sequence.drawing ? 1 : 0);
  state.computed = sequence.table.length();
  state.blocks = static_cast<int64_t>(sequence.table.block_list().size());
  state.shared_tail = sequence.table.copies_on_write();
  state.width = sequence.request->prompt_computed ? 1 : sequence.request->request.n;
  return state;
}

SchedulerState EngineCore::state() const {
  SchedulerState state;
  state.block_size = options_.block_size;
  state.free_blocks = cache_.free_blocks();
  state.max_running = options_.max_running;
  state.max_step_tokens = options_.max_step_tokens;
  state.running.reserve(running_.size());
  for (const Sequence* sequence : running_) state.running.push_back(state_of(*sequence));
  const auto room =
      static_cast<size_t>(std::max<int64_t>(options_.max_running - static_cast<int64_t>(running_.size()), 0));
  const size_t most = std::min(room, kMostAdmitted);
  for (auto it = waiting_.begin(); it != waiting_.end() && state.waiting.size() < most; ++it) {
    const Sequence& sequence = *it->second;
    SequenceState waiting = state_of(sequence);
    if (!sequence.request->wants_prompt_logprobs()) {
      const PrefixCount prefix = cache_.pool().count_prefix(sequence.tokens, waiting.tokens - 1);
      waiting.prefix_tokens = prefix.tokens;
      waiting.prefix_free_blocks = prefix.free_blocks;
    }
    state.waiting.push_back(waiting);
  }
  return state;
}

SchedulerPlan EngineCore::plan() {
  SchedulerState now = state();
  SchedulerPlan plan;
  if (planned_ && planned_->first == now) {
    plan = std::move(planned_->second);
  } else {
    plan = schedule(now);
  }
  planned_.reset();
  while (!plan.preempted.empty()) {
    std::vector<Sequence*> victims;
    for (const int64_t index : plan.preempted) victims.push_back(running_[static_cast<size_t>(index)]);
    for (Sequence* victim : victims) preempt(*victim);
    now = state();
    now.waiting.clear();
    plan = schedule(now);
  }
  return plan;
}

void EngineCore::plan_ahead() {
  const bool surprise = !cancelled_.empty() || !stopped_.empty() ||
                        std::any_of(pieces_.begin(), pieces_.end(), [](const Piece& piece) {
                          const Sequence& sequence = *piece.sequence;
                          return piece.end == size_of(sequence.tokens) &&
                                 (!sequence.drawing || piece.end + 1 >= sequence.limit() ||
                                  (!sequence.request->prompt_computed && sequence.request->request.n > 1));
                        });
  if (surprise) return;
  SchedulerState next = state();
  SchedulerPlan plan = schedule(next);
  planned_.emplace(std::move(next), std::move(plan));
}

void EngineCore::preempt(Sequence& sequence) {
  std::erase(running_, &sequence);
  sequence.table.clear();
  enqueue(sequence);
  ++counts_.preemptions;
}

bool EngineCore::prepare() {
  assert(!in_step_);
  retire_cancelled();
  pieces_.clear();
  chunks_.clear();
  queries_.clear();
  rows_ = 0;
  const SchedulerPlan plan = this->plan();
  std::vector<std::pair<Sequence*, int64_t>> admitted;
  auto next = waiting_.begin();
  for (const auto& piece : plan.admitted) admitted.emplace_back((next++)->second, piece.tokens);
  // Prefixes first: what the step allocates could evict them.
  for (const auto& [sequence, tokens] : admitted) {
    if (sequence->request->wants_prompt_logprobs()) continue;
    const int64_t found = sequence->table.take_prefix(sequence->tokens, size_of(sequence->tokens) - 1);
    if (!sequence->request->admitted) sequence->request->cached_tokens = found;
  }
  int64_t free = cache_.free_blocks();
  const auto fits = [&](const Sequence& sequence, int64_t tokens) {
    const int64_t needed = sequence.table.blocks_for(tokens);
    if (needed > free) return false;
    free -= needed;
    return true;
  };
  for (const auto& piece : plan.running) {
    Sequence& sequence = *running_[static_cast<size_t>(piece.sequence)];
    if (fits(sequence, piece.tokens)) add_piece(sequence, piece.tokens);
  }
  for (const auto& [sequence, planned] : admitted) {
    const int64_t tokens = std::min(planned, size_of(sequence->tokens) - sequence->table.length());
    if (!fits(*sequence, tokens)) {
      // The index gave less than it promised. It stays where it is in the queue.
      sequence->table.clear();
      continue;
    }
    waiting_.erase(age_of(*sequence));
    sequence->state = Sequence::State::running;
    running_.insert(
        std::upper_bound(running_.begin(), running_.end(), sequence,
                         [](const Sequence* a, const Sequence* b) { return age_of(*a) < age_of(*b); }),
        sequence);
    leave_queue(*sequence->request);
    add_piece(*sequence, tokens);
  }
  if (pieces_.empty()) return false;
  runner_.append(chunks_);
  answers_.assign(queries_.size(), {});
  in_step_ = true;
  return true;
}

void EngineCore::add_piece(Sequence& sequence, int64_t tokens) {
  Piece piece{&sequence, sequence.table.length(), sequence.table.length() + tokens, queries_.size(), 0};
  chunks_.push_back(
      {&sequence.table,
       std::span(sequence.tokens).subspan(static_cast<size_t>(piece.begin), static_cast<size_t>(tokens))});
  add_queries(piece, rows_);
  rows_ += tokens;
  pieces_.push_back(piece);
}

void EngineCore::add_queries(Piece& piece, int64_t first_row) {
  Sequence& sequence = *piece.sequence;
  const ActiveRequest& active = *sequence.request;
  const Request& request = active.request;
  if (active.wants_prompt_logprobs()) {
    // The row of a token says how likely the next one is.
    const int64_t begin = std::max(piece.begin, static_cast<int64_t>(active.prompt_logprobs.size()));
    const int64_t end = std::min(piece.end, size_of(request.prompt) - 1);
    for (int64_t position = begin; position < end; ++position) {
      queries_.push_back({.row = first_row + position - piece.begin,
                          .target = request.prompt[static_cast<size_t>(position) + 1],
                          .top = *request.prompt_logprobs});
    }
    piece.prompt_logprobs = std::max<int64_t>(end - begin, 0);
  }
  sequence.drawing = piece.end == size_of(sequence.tokens) && piece.end < sequence.limit();
  if (!sequence.drawing) return;
  const auto draw = [&](const Sequence& choice) {
    queries_.push_back({.row = first_row + piece.end - 1 - piece.begin,
                        .draw = true,
                        .params = choice.sampler.next(),
                        .changes = choice.sampler.changes(),
                        .mask = choice.sampler.mask(),
                        .top = request.logprobs.value_or(-1)});
  };
  if (active.prompt_computed) {
    draw(sequence);
  } else {
    for (const auto& choice : active.choices) draw(*choice);
  }
}

void EngineCore::compute() {
  const MatrixView<const float> hidden = runner_.forward();
  runner_.evaluate(hidden, queries_, answers_);
}

void EngineCore::apply() {
  assert(in_step_);
  in_step_ = false;
  ++counts_.steps;
  for (const Piece& piece : pieces_) {
    counts_.step_tokens += static_cast<uint64_t>(piece.end - piece.begin);
    apply(piece);
  }
  pieces_.clear();
  if (options_.check_blocks) check();
}

void EngineCore::apply(const Piece& piece) {
  Sequence& sequence = *piece.sequence;
  ActiveRequest& request = *sequence.request;
  sequence.drawing = false;
  // Whatever comes of those that have ended meanwhile is dropped; prepare() takes them out.
  if (sequence.told || request.cancelled || request.failed) return;
  sequence.table.index(sequence.tokens);
  for (int64_t i = 0; i < piece.prompt_logprobs; ++i) {
    const size_t index = piece.first_query + static_cast<size_t>(i);
    if (std::isnan(answers_[index].logprob)) {
      fail(request, "the prompt has no log-probabilities: not all of its logits are finite");
      return;
    }
    request.prompt_logprobs.push_back(logprob_of(answers_[index], queries_[index].target));
  }
  if (piece.end < size_of(sequence.tokens)) return;
  const bool draws = piece.end < sequence.limit();
  const size_t first_answer = piece.first_query + static_cast<size_t>(piece.prompt_logprobs);
  if (request.prompt_computed) {
    take_token(sequence, answers_[first_answer]);
    return;
  }
  end_prompt(sequence);
  for (const auto& choice : request.choices) {
    if (request.failed) return;
    if (draws) {
      take_token(*choice, answers_[first_answer + static_cast<size_t>(choice->choice)]);
    } else {
      retire(*choice);
      events_.push_back({&request, choice.get(), {}, {}, FinishReason::length, {}});
    }
  }
}

void EngineCore::end_prompt(Sequence& leader) {
  ActiveRequest& request = *leader.request;
  request.prompt_computed = true;
  counts_.prompt_tokens += static_cast<uint64_t>(request.request.prompt.size());
  counts_.cached_prompt_tokens += static_cast<uint64_t>(request.cached_tokens);
  events_.push_back({&request, nullptr, {}, {}, {}, {}});
  auto place = std::find(running_.begin(), running_.end(), &leader) + 1;
  for (size_t i = 1; i < request.choices.size(); ++i) {
    Sequence& choice = *request.choices[i];
    choice.table = leader.table.fork();
    choice.state = Sequence::State::running;
    place = running_.insert(place, &choice) + 1;
  }
}

void EngineCore::take_token(Sequence& sequence, const RowAnswer& answer) {
  ActiveRequest& request = *sequence.request;
  if (answer.token < 0) {
    fail(request, "no token can be chosen: none of the logits is finite");
    return;
  }
  sequence.sampler.accept(answer.token);
  sequence.tokens.push_back(answer.token);
  ++counts_.generated_tokens;
  Event event{&request, &sequence, answer.token, {}, {}, {}};
  if (request.request.logprobs) event.logprob = logprob_of(answer, answer.token);
  const auto& stop_ids = request.request.stop_ids;
  if (std::find(stop_ids.begin(), stop_ids.end(), answer.token) != stop_ids.end()) {
    event.finish_reason = FinishReason::stop;
  } else if (size_of(sequence.tokens) == sequence.limit()) {
    event.finish_reason = FinishReason::length;
  }
  if (event.finish_reason) retire(sequence);
  events_.push_back(std::move(event));
}

// ---- What came of it.

void EngineCore::publish() {
  std::vector<Event> events;
  events.swap(events_);
  for (Event& event : events) tell(event);
  sweep();
}

void EngineCore::tell(Event& event) {
  ActiveRequest& request = *event.request;
  if (event.sequence == nullptr) {
    if (!event.error.empty()) {
      // Where all choices have ended before, it came too late to matter.
      const bool told = std::all_of(request.choices.begin(), request.choices.end(),
                                    [](const auto& choice) { return choice->told; });
      if (told) return;
      for (const auto& choice : request.choices) choice->told = true;
      request.listener->on_error(std::move(event.error));
    } else {
      request.listener->on_prompt(
          {size_of(request.request.prompt), request.cached_tokens, std::move(request.prompt_logprobs)});
      request.prompt_logprobs.clear();
    }
    return;
  }
  Sequence& sequence = *event.sequence;
  if (sequence.told) return;
  Delta delta;
  delta.choice = sequence.choice;
  delta.finish_reason = event.finish_reason;
  if (event.token) {
    delta.tokens.push_back(*event.token);
    if (request.request.logprobs) delta.logprobs.push_back(std::move(event.logprob));
    if (event.finish_reason != FinishReason::stop) {
      delta.text = sequence.stops.push(sequence.detokenizer.push(*event.token));
    }
  }
  if (event.finish_reason && event.finish_reason != FinishReason::cancelled && !sequence.stops.matched()) {
    delta.text += sequence.stops.push(sequence.detokenizer.finish());
    delta.text += sequence.stops.finish();
  }
  if (sequence.stops.matched()) {
    delta.finish_reason = FinishReason::stop;
    if (sequence.state != Sequence::State::done) stopped_.push_back(&sequence);
  }
  sequence.told = delta.finish_reason.has_value();
  request.listener->on_delta(std::move(delta));
}

void EngineCore::fill(EngineStats& stats) const {
  stats = counts_;
  stats.running = static_cast<int64_t>(running_.size());
  stats.waiting = static_cast<int64_t>(waiting_.size());
  stats.blocks = cache_.n_blocks();
  stats.free_blocks = cache_.free_blocks();
  stats.cached_blocks = cache_.pool().cached_blocks();
  stats.cache_bytes = cache_.bytes();
  stats.bytes_per_token = kv_bytes_per_token(cache_.shape(), cache_.format());
  stats.bytes_per_token_f16 = kv_bytes_per_token(cache_.shape(), KvFormat::f16);
}

void EngineCore::check() const {
  std::vector<int32_t> owned;
  for (const auto& [id, request] : requests_) {
    for (const auto& choice : request->choices) {
      const auto blocks = choice->table.block_list();
      owned.insert(owned.end(), blocks.begin(), blocks.end());
    }
  }
  cache_.pool().check(owned);
}

}  // namespace atom
