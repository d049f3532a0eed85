#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>

namespace atom {
namespace {

/// One block in so many stays free when sequences are admitted, for the answers of those that run.
constexpr int64_t kReserve = 64;

int64_t blocks_of(int64_t tokens, int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

bool decodes(const SequenceState& sequence) {
  return sequence.tokens - sequence.computed == 1;
}

class Planner {
 public:
  explicit Planner(const SchedulerState& state)
      : state_(state),
        free_(state.free_blocks),
        budget_(state.max_step_tokens),
        end_(static_cast<int64_t>(state.running.size())),
        pieces_(state.running.size(), 0) {}

  SchedulerPlan plan() {
    give_tokens([](const SequenceState& sequence) { return decodes(sequence); });
    give_tokens([](const SequenceState& sequence) { return !decodes(sequence); });
    for (int64_t i = 0; i < end_; ++i) {
      const int64_t tokens = pieces_[static_cast<size_t>(i)];
      if (tokens > 0) plan_.running.push_back({i, tokens});
    }
    if (plan_.preempted.empty()) admit();
    return std::move(plan_);
  }

 private:
  const SequenceState& running(int64_t i) const { return state_.running[static_cast<size_t>(i)]; }

  /// To every running sequence of a kind, oldest first, preempting from the back where blocks are wanting.
  template <class Kind>
  void give_tokens(Kind is_wanted) {
    for (int64_t i = 0; i < end_ && budget_ > 0; ++i) {
      const SequenceState& sequence = running(i);
      if (!is_wanted(sequence)) continue;
      int64_t count = std::min(sequence.tokens - sequence.computed, budget_);
      while (true) {
        const int64_t needed = blocks_needed(sequence, count, state_.block_size);
        if (needed <= free_) {
          free_ -= needed;
          budget_ -= count;
          pieces_[static_cast<size_t>(i)] = count;
          break;
        }
        preempt(--end_);
        if (end_ == i) break;
      }
    }
  }

  void preempt(int64_t i) {
    const SequenceState& victim = running(i);
    int64_t& tokens = pieces_[static_cast<size_t>(i)];
    if (tokens > 0) {
      free_ += blocks_needed(victim, tokens, state_.block_size);
      budget_ += tokens;
      tokens = 0;
    }
    free_ += victim.blocks;
    plan_.preempted.push_back(i);
  }

  void admit() {
    int64_t count = 0;
    int64_t promised = 0;  // blocks that running prompts will still take, and those of this step
    int64_t blocks = 0;
    for (int64_t i = 0; i < end_; ++i) {
      const SequenceState& sequence = running(i);
      count += sequence.width;
      blocks += sequence.blocks;
      promised += blocks_needed(sequence, sequence.tokens + 1 - sequence.computed, state_.block_size) +
                  sequence.width - 1;
    }
    const int64_t total = state_.free_blocks + blocks;
    const int64_t reserve = total / kReserve;
    int64_t left = state_.free_blocks - promised;
    for (size_t i = 0; i < state_.waiting.size() && budget_ > 0; ++i) {
      const SequenceState& sequence = state_.waiting[i];
      if (count + sequence.width > state_.max_running) return;
      // What it takes in all: blocks of the prefix that nobody owns, new ones for the rest and one token more
      // of every choice.
      const int64_t needed = sequence.prefix_free_blocks + blocks_of(sequence.tokens + 1, state_.block_size) -
                             blocks_of(sequence.prefix_tokens, state_.block_size) + sequence.width - 1;
      const bool alone = count == 0;
      if (needed > left - (alone ? 0 : reserve) && !alone) return;
      const int64_t tokens = std::min(sequence.tokens - sequence.prefix_tokens, budget_);
      plan_.admitted.push_back({static_cast<int64_t>(i), tokens});
      left -= needed;
      budget_ -= tokens;
      count += sequence.width;
    }
  }

  const SchedulerState& state_;
  int64_t free_;
  int64_t budget_;
  int64_t end_;  // running sequences from here on have been preempted
  std::vector<int64_t> pieces_;
  SchedulerPlan plan_;
};

}  // namespace

int64_t blocks_needed(const SequenceState& sequence, int64_t count, int64_t block_size) {
  if (count == 0) return 0;
  return blocks_of(sequence.computed + count, block_size) - sequence.blocks + (sequence.shared_tail ? 1 : 0);
}

SchedulerPlan schedule(const SchedulerState& state) {
  assert(state.max_step_tokens > state.max_running);
  return Planner(state).plan();
}

}  // namespace atom
