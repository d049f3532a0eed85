#pragma once

#include <cstdint>
#include <span>
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

/// What match() would find.
struct PrefixCount {
  int64_t tokens = 0;
  /// Of its blocks, those that nobody owns: taking them up leaves so many fewer free.
  int64_t free_blocks = 0;
};

/// Where in the prefix index the `tokens` of a block behind `previous` are looked for.
using BlockHash = uint64_t (*)(PrefixNode previous, std::span<const int32_t> tokens);
uint64_t hash_block(PrefixNode previous, std::span<const int32_t> tokens);

/// Who owns which block of a paged KV cache, and what the blocks hold: reference counts, the free blocks, and
/// the prefix index. Bookkeeping alone: no memory, no model. Not thread-safe.
///
/// A block is in one of three states: owned (references >= 1), cached (nobody owns it, but the index knows
/// the tokens that it holds, so that a later prompt may take it up again), or blank. Cached blocks are free:
/// allocate() takes blank ones first and then evicts the cached one that was released longest ago.
///
/// A block whose predecessor has left the index can't be matched any more; it stays cached until it is the
/// oldest. Owners who release the blocks of a sequence from its end evict tails before what leads to them.
class BlockPool {
 public:
  /// Without `prefix_caching` the index stays empty. `hash` need not be good for the answers to be right.
  /// Throws Error for more than 2^31 - 1 blocks.
  BlockPool(int64_t n_blocks, int64_t block_size, bool prefix_caching = true, BlockHash hash = hash_block);

  int64_t n_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t block_size() const { return block_size_; }
  bool prefix_caching() const { return prefix_caching_; }
  /// Blocks that allocate() can give: blank and cached ones.
  int64_t free_blocks() const { return n_blank_ + n_cached_; }
  int64_t cached_blocks() const { return n_cached_; }
  int references(int32_t block) const { return at(block).references; }
  /// What stands for `block` and all before it; kNoPrefix where the index does not know what it holds.
  PrefixNode node(int32_t block) const;

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
  /// What match() would find; changes nothing.
  PrefixCount count_prefix(std::span<const int32_t> tokens, int64_t most_tokens) const;

  /// Makes the index know that `block`, owned, holds the block_size `tokens` that come behind what `previous`
  /// stands for. Returns the node that stands for all of it: a new one, or where another block holds the same
  /// tokens already that block's (`block` is not indexed then). kNoPrefix when the index does not know
  /// `previous` (any more) or is off.
  PrefixNode insert(PrefixNode previous, int32_t block, std::span<const int32_t> tokens);
  /// The block that `node`, which the index knows, stands for, retained for the caller.
  int32_t take(PrefixNode node);
  /// Forgets what `block` holds: its owner is about to write other tokens over it.
  void forget(int32_t block);

  /// Forgets what cached blocks hold; they become blank.
  void forget_cached();

  /// Throws std::logic_error unless every block is blank or cached or owned exactly as often as it occurs in
  /// `owned`, and the lists and the index agree with the counts. O(blocks).
  void check(std::span<const int32_t> owned) const;

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int32_t references = 0;
    /// Neighbours among the cached blocks in order of release; `newer` links the blank ones.
    int32_t older = kNone;
    int32_t newer = kNone;
    /// The next indexed block of the same bucket.
    int32_t chained = kNone;
    /// How often it has been indexed, so that each time has a node of its own.
    uint32_t version = 0;
    bool indexed = false;
    // Of an indexed block; its tokens are in tokens_.
    uint64_t hash = 0;
    PrefixNode previous = kNoPrefix;
  };

  Block& at(int32_t block);
  const Block& at(int32_t block) const;
  std::span<const int32_t> tokens_of(int32_t block) const;
  uint64_t hash_of(PrefixNode previous, std::span<const int32_t> tokens) const {
    return hash_(previous ^ seed_, tokens);
  }
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  int32_t bucket(uint64_t hash) const { return buckets_[hash & (buckets_.size() - 1)]; }
  bool knows(PrefixNode node) const;
  /// The indexed block of these tokens, or kNone.
  int32_t find(uint64_t hash, PrefixNode previous, std::span<const int32_t> tokens) const;
  /// Calls visit(block) for the blocks of the longest indexed beginning.
  template <class Visit>
  void walk(std::span<const int32_t> tokens, int64_t most_tokens, Visit visit) const;
  void unindex(int32_t block);
  void push_blank(int32_t block);
  void push_cached(int32_t block);
  void unlink_cached(int32_t block);
  void check_lists() const;
  void check_index() const;

  int64_t block_size_;
  bool prefix_caching_;
  BlockHash hash_;
  /// Nobody who picks tokens can know which ones share a bucket.
  uint64_t seed_;
  std::vector<Block> blocks_;
  int32_t blank_ = kNone;
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
  int64_t n_blank_ = 0;
  int64_t n_cached_ = 0;
  std::vector<int32_t> tokens_;   // [blocks, block_size]
  std::vector<int32_t> buckets_;  // first block of each; a power of two of them
};

}  // namespace atom
