#include "engine/simulation.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <set>
#include <stdexcept>

namespace atom {
namespace {

void promise(bool kept, const char* what) {
  if (!kept) throw std::logic_error(what);
}

class Simulation {
 public:
  Simulation(std::span<const SimulatedRequest> traffic, const SimulationOptions& options)
      : traffic_(traffic), options_(options), sequences_(traffic.size()), order_(traffic.size()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t a, size_t b) { return traffic[a].arrival < traffic[b].arrival; });
    for (size_t i = 0; i < order_.size(); ++i) sequences_[i].tokens = request(i).prompt_tokens;
    result_.requests.resize(traffic.size());
    state_.block_size = options.block_size;
    state_.free_blocks = options.n_blocks;
    state_.max_running = options.max_running;
    state_.max_step_tokens = options.max_step_tokens;
  }

  SimulationResult run() {
    while (arrived_ < order_.size() || !waiting_.empty() || !running_.empty()) {
      if (waiting_.empty() && running_.empty()) clock_ = std::max(clock_, request(arrived_).arrival);
      while (arrived_ < order_.size() && request(arrived_).arrival <= clock_) waiting_.insert(arrived_++);
      step();
    }
    result_.seconds = clock_;
    return std::move(result_);
  }

 private:
  /// Sequences are numbered by age.
  const SimulatedRequest& request(size_t sequence) const { return traffic_[order_[sequence]]; }

  void step() {
    state_.running.clear();
    for (const size_t i : running_) state_.running.push_back(sequences_[i]);
    state_.waiting.clear();
    for (auto it = waiting_.begin(); it != waiting_.end() && state_.waiting.size() < kMostAdmitted; ++it) {
      state_.waiting.push_back(sequences_[*it]);
    }
    const SchedulerPlan plan = schedule(state_);
    ++result_.steps;
    for (const int64_t index : plan.preempted) {
      promise(index > 0, "the oldest sequence is preempted");
      promise(index == static_cast<int64_t>(running_.size()) - 1, "not the youngest is preempted");
      const size_t victim = running_.back();
      running_.pop_back();
      state_.free_blocks += sequences_[victim].blocks;
      sequences_[victim].blocks = sequences_[victim].computed = 0;
      waiting_.insert(victim);
      ++result_.preemptions;
    }
    const size_t before = running_.size();
    auto next = waiting_.begin();
    for (size_t i = 0; i < plan.admitted.size(); ++i) {
      promise(plan.admitted[i].sequence == static_cast<int64_t>(i), "one is admitted before its turn");
      running_.push_back(*next);
      next = waiting_.erase(next);
    }
    // Preempted ones come back older than those that were admitted behind them.
    int64_t tokens = 0;
    for (const auto& piece : plan.running) {
      promise(piece.sequence < static_cast<int64_t>(before), "a preempted sequence runs");
      tokens += compute(running_[static_cast<size_t>(piece.sequence)], piece.tokens);
    }
    for (size_t i = 0; i < plan.admitted.size(); ++i) {
      tokens += compute(running_[before + i], plan.admitted[i].tokens);
    }
    promise(tokens > 0, "a step does nothing");
    promise(tokens <= options_.max_step_tokens, "a step has too many tokens");
    promise(static_cast<int64_t>(running_.size()) <= options_.max_running, "too many sequences run");
    std::sort(running_.begin(), running_.end());
    result_.most_running = std::max(result_.most_running, static_cast<int64_t>(running_.size()));
    result_.computed_tokens += tokens;
    clock_ += options_.step_seconds + static_cast<double>(tokens) * options_.token_seconds;
    finish();
  }

  int64_t compute(size_t index, int64_t tokens) {
    SequenceState& sequence = sequences_[index];
    const int64_t blocks = blocks_needed(sequence, tokens, options_.block_size);
    promise(blocks <= state_.free_blocks, "there are too few blocks");
    promise(tokens > 0 && sequence.computed + tokens <= sequence.tokens,
            "a piece is not part of its sequence");
    state_.free_blocks -= blocks;
    sequence.blocks += blocks;
    sequence.computed += tokens;
    return tokens;
  }

  /// Draws the tokens and ends what has all of its own.
  void finish() {
    std::erase_if(running_, [&](size_t index) {
      SequenceState& sequence = sequences_[index];
      if (sequence.computed < sequence.tokens) return false;
      auto& times = result_.requests[order_[index]];
      if (times.tokens == 0) times.first_token = clock_;
      ++times.tokens;
      if (times.tokens < request(index).output_tokens) {
        ++sequence.tokens;
        return false;
      }
      times.finish = clock_;
      state_.free_blocks += sequence.blocks;
      return true;
    });
  }

  std::span<const SimulatedRequest> traffic_;
  SimulationOptions options_;
  std::vector<SequenceState> sequences_;
  std::vector<size_t> order_;
  std::set<size_t> waiting_;
  std::vector<size_t> running_;
  size_t arrived_ = 0;
  SchedulerState state_;
  double clock_ = 0;
  SimulationResult result_;
};

}  // namespace

SimulationResult simulate(std::span<const SimulatedRequest> traffic, const SimulationOptions& options) {
  return Simulation(traffic, options).run();
}

}  // namespace atom
