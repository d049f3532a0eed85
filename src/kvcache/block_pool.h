#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

namespace atom {

/// What a whole number of blocks from the beginning of a sequence holds, in the prefix index. Never used
/// again once the block that it stood for holds something else.
using PrefixNode = uint64_t;
inline constexpr PrefixNode kNoPrefix = 0;
/// The beginning of every sequence.
inline constexpr PrefixNode kRootPrefix = 1;

struct PrefixMatch {
  std::vector<int32_t> blocks;
  PrefixNode node = kRootPrefix;
};

/// Who owns which block of a paged KV cache, and what the blocks hold: reference counts, the free blocks, and
/// the prefix index. Bookkeeping alone: no memory, no model. Not thread-safe.
///
/// A block is in one of three states: owned (references >= 1), cached (nobody owns it, but the index knows
/// the tokens that it holds, so that a later prompt may take it up again), or blank. Cached blocks are free:
/// allocate() takes blank ones first and then evicts the cached one that was released longest ago.
class BlockPool {
 public:
  /// Without `prefix_caching` the index stays empty.
  BlockPool(int64_t n_blocks, int64_t block_size, bool prefix_caching = true);

  int64_t n_blocks() const;
  int64_t block_size() const { return block_size_; }
  bool prefix_caching() const { return prefix_caching_; }
  /// Blocks that allocate() can give: blank and cached ones.
  int64_t free_blocks() const;
  int64_t cached_blocks() const;
  int references(int32_t block) const;

  /// Takes a block, with one reference. Throws Error when there is none.
  int32_t allocate();
  /// One owner more of a block that has one.
  void retain(int32_t block);
  /// One owner less. The last one's leaves the block cached where the index knows it, else blank.
  void release(int32_t block);

  /// The blocks that hold the longest indexed beginning of `tokens`, whole blocks only, at most `most_tokens`
  /// tokens of it, each retained for the caller. Every block's tokens and predecessor are compared, not only
  /// hashes: a collision can't give wrong keys.
  PrefixMatch match(std::span<const int32_t> tokens, int64_t most_tokens);
  /// How many tokens match() would find; changes nothing.
  int64_t matched_tokens(std::span<const int32_t> tokens, int64_t most_tokens) const;

  /// Makes the index know that `block`, owned, holds the block_size `tokens` that come behind what `previous`
  /// stands for. Returns the node that stands for all of it: a new one, or where another block holds the same
  /// tokens already that block's (`block` is not indexed then). kNoPrefix when the index does not know
  /// `previous` (any more) or is off.
  PrefixNode insert(PrefixNode previous, int32_t block, std::span<const int32_t> tokens);
  /// Forgets what `block` holds: its owner is about to write other tokens over it.
  void forget(int32_t block);

  /// Forgets what cached blocks hold; they become blank.
  void forget_cached();

  /// Throws std::logic_error unless every block is blank or cached or owned exactly as often as it occurs in
  /// `owned`, and the lists and the index agree with the counts. O(blocks).
  void check(std::span<const int32_t> owned) const;
};

}  // namespace atom
