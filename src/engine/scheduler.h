#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atom {

/// A sequence as the scheduler sees it.
struct SequenceState {
  /// Of the prompt and the answer so far: what has to be in the cache before the next token can be drawn.
  int64_t tokens = 0;
  /// Of these, in the cache. 0 while it waits.
  int64_t computed = 0;
  /// Blocks that it holds. 0 while it waits.
  int64_t blocks = 0;
  /// Its last block is shared and not full: the next token costs a block for a copy of it.
  bool shared_tail = false;
  /// Sequences that it becomes when its tokens are computed (`n` of a request).
  int64_t width = 1;
  /// While it waits: tokens that the prefix index can give it, fewer than `tokens`, and how many free blocks
  /// that takes (those that nobody owns).
  int64_t prefix_tokens = 0;
  int64_t prefix_free_blocks = 0;

  bool operator==(const SequenceState&) const = default;
};

/// Waiting sequences that it is worth telling a plan about: so many are admitted in a step at most.
inline constexpr size_t kMostAdmitted = 64;

/// All that a decision depends on.
struct SchedulerState {
  int64_t block_size = 16;
  int64_t free_blocks = 0;
  /// Limits of a step, max_step_tokens > max_running.
  int64_t max_running = 1;
  int64_t max_step_tokens = 2;
  /// Oldest first. Of `waiting`, a beginning of the queue is enough.
  std::vector<SequenceState> running;
  std::vector<SequenceState> waiting;

  bool operator==(const SchedulerState&) const = default;
};

/// What the next step does.
struct SchedulerPlan {
  /// `tokens` more of a sequence: of running[sequence], or of waiting[sequence] behind its prefix.
  struct Piece {
    int64_t sequence = 0;
    int64_t tokens = 0;

    bool operator==(const Piece&) const = default;
  };
  /// Indices of `running`, youngest first: their blocks are taken from them before anything else happens;
  /// they wait again, and begin anew.
  std::vector<int64_t> preempted;
  std::vector<Piece> running;
  /// waiting[0], [1], ... in order.
  std::vector<Piece> admitted;

  bool operator==(const SchedulerPlan&) const = default;
};

/// The policy, a function of the state alone:
///
/// 1. Every running sequence that has one token to compute (decode) gets it, oldest first. The rest of
///    max_step_tokens goes to pieces of prompts: of running sequences, then of waiting ones, oldest first. A
///    long prompt thus never holds back the others' next tokens, but for the time that its piece takes.
/// 2. Where the free blocks do not suffice for that, the youngest running sequence is preempted, and again.
///    The oldest can't be (a sequence alone always fits), so that every sequence finishes in the end, and the
///    oldest first.
/// 3. A waiting sequence is admitted in order, where the blocks suffice for all of its tokens and one more
///    beside what the running ones still need for theirs and a small reserve, so that it is not preempted
///    soon; never in a step that preempts. One that does not fit lets nobody pass.
///
/// Blocks of preempted sequences are counted as free, although other sequences may share them. So whoever
/// carries out a plan preempts first, and asks again when fewer blocks are free than expected.
SchedulerPlan schedule(const SchedulerState& state);

/// Blocks that `count` tokens more of a sequence take.
int64_t blocks_needed(const SequenceState& sequence, int64_t count, int64_t block_size);

}  // namespace atom
