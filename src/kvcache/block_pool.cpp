#include "kvcache/block_pool.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <random>
#include <stdexcept>

#include <fmt/format.h>

#include "base/error.h"
#include "base/random.h"

namespace atom {
namespace {

/// The low half of a node is its block, the high one, never 0, the block's version.
PrefixNode make_node(int32_t block, uint32_t version) {
  return PrefixNode{version} << 32 | static_cast<uint32_t>(block);
}
int32_t block_of(PrefixNode node) {
  return static_cast<int32_t>(node & 0xFFFFFFFF);
}

template <class... Args>
void verify(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw std::logic_error("block pool: " + fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

uint64_t hash_block(PrefixNode previous, std::span<const int32_t> tokens) {
  uint64_t hash = random_word(previous, tokens.size());
  size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2) {
    const uint64_t low = static_cast<uint32_t>(tokens[i]);
    const uint64_t high = static_cast<uint32_t>(tokens[i + 1]);
    hash = random_word(hash ^ (high << 32 | low), 0);
  }
  if (i < tokens.size()) hash = random_word(hash ^ static_cast<uint32_t>(tokens[i]), 0);
  return hash;
}

BlockPool::BlockPool(int64_t n_blocks, int64_t block_size, bool prefix_caching, BlockHash hash)
    : block_size_(block_size), prefix_caching_(prefix_caching), hash_(hash), seed_(std::random_device()()) {
  assert(n_blocks >= 0 && block_size > 0);
  require(n_blocks <= std::numeric_limits<int32_t>::max(), "a KV cache of {} blocks: at most {} can be kept",
          n_blocks, std::numeric_limits<int32_t>::max());
  const auto count = static_cast<size_t>(n_blocks);
  blocks_.resize(count);
  if (prefix_caching) {
    tokens_.resize(count * static_cast<size_t>(block_size));
    buckets_.assign(std::bit_ceil(std::max<size_t>(count, 1)), kNone);
  }
  // Handed out from the front of the list: block 0 first.
  for (int64_t block = n_blocks; block-- > 0;) push_blank(static_cast<int32_t>(block));
}

BlockPool::Block& BlockPool::at(int32_t block) {
  assert(block >= 0 && block < n_blocks());
  return blocks_[static_cast<size_t>(block)];
}

const BlockPool::Block& BlockPool::at(int32_t block) const {
  assert(block >= 0 && block < n_blocks());
  return blocks_[static_cast<size_t>(block)];
}

std::span<const int32_t> BlockPool::tokens_of(int32_t block) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block * block_size_),
                                    static_cast<size_t>(block_size_));
}

PrefixNode BlockPool::node(int32_t block) const {
  const Block& entry = at(block);
  return entry.indexed ? make_node(block, entry.version) : kNoPrefix;
}

bool BlockPool::knows(PrefixNode node) const {
  if (node == kRootPrefix) return true;
  const int32_t block = block_of(node);
  return block >= 0 && block < n_blocks() && node != kNoPrefix && this->node(block) == node;
}

int32_t BlockPool::allocate() {
  int32_t block = blank_;
  if (block != kNone) {
    blank_ = at(block).newer;
    --n_blank_;
  } else {
    block = oldest_;
    require(block != kNone, "the KV cache is full: all {} blocks of {} tokens are in use", n_blocks(),
            block_size_);
    unlink_cached(block);
    unindex(block);
  }
  at(block).references = 1;
  return block;
}

void BlockPool::retain(int32_t block) {
  Block& entry = at(block);
  assert(entry.references > 0);
  ++entry.references;
}

void BlockPool::release(int32_t block) {
  Block& entry = at(block);
  assert(entry.references > 0);
  if (--entry.references > 0) return;
  if (entry.indexed) {
    push_cached(block);
  } else {
    push_blank(block);
  }
}

int32_t BlockPool::find(uint64_t hash, PrefixNode previous, std::span<const int32_t> tokens) const {
  for (int32_t block = bucket(hash); block != kNone; block = at(block).chained) {
    const Block& entry = at(block);
    if (entry.hash == hash && entry.previous == previous && std::ranges::equal(tokens_of(block), tokens)) {
      return block;
    }
  }
  return kNone;
}

template <class Visit>
void BlockPool::walk(std::span<const int32_t> tokens, int64_t most_tokens, Visit visit) const {
  if (!prefix_caching_) return;
  const int64_t count = std::min(static_cast<int64_t>(tokens.size()), most_tokens) / block_size_;
  PrefixNode previous = kRootPrefix;
  for (int64_t i = 0; i < count; ++i) {
    const auto piece = tokens.subspan(static_cast<size_t>(i * block_size_), static_cast<size_t>(block_size_));
    const int32_t block = find(hash_of(previous, piece), previous, piece);
    if (block == kNone) return;
    previous = node(block);
    visit(block);
  }
}

PrefixMatch BlockPool::match(std::span<const int32_t> tokens, int64_t most_tokens) {
  PrefixMatch result;
  walk(tokens, most_tokens, [&](int32_t block) { result.blocks.push_back(block); });
  for (const int32_t block : result.blocks) take(node(block));
  if (!result.blocks.empty()) result.node = node(result.blocks.back());
  return result;
}

PrefixCount BlockPool::count_prefix(std::span<const int32_t> tokens, int64_t most_tokens) const {
  PrefixCount count;
  walk(tokens, most_tokens, [&](int32_t block) {
    count.tokens += block_size_;
    if (references(block) == 0) ++count.free_blocks;
  });
  return count;
}

PrefixNode BlockPool::insert(PrefixNode previous, int32_t block, std::span<const int32_t> tokens) {
  assert(static_cast<int64_t>(tokens.size()) == block_size_ && at(block).references > 0);
  if (!prefix_caching_ || !knows(previous)) return kNoPrefix;
  const uint64_t hash = hash_of(previous, tokens);
  const int32_t known = find(hash, previous, tokens);
  if (known != kNone) return node(known);
  Block& entry = at(block);
  if (entry.indexed) unindex(block);
  std::ranges::copy(tokens, tokens_.begin() + block * block_size_);
  entry.indexed = true;
  if (++entry.version == 0) ++entry.version;
  entry.hash = hash;
  entry.previous = previous;
  entry.chained = bucket(hash);
  bucket(hash) = block;
  return node(block);
}

int32_t BlockPool::take(PrefixNode node) {
  assert(node != kRootPrefix && knows(node));
  const int32_t block = block_of(node);
  if (at(block).references == 0) unlink_cached(block);
  ++at(block).references;
  return block;
}

void BlockPool::forget(int32_t block) {
  assert(at(block).references > 0);
  if (at(block).indexed) unindex(block);
}

void BlockPool::forget_cached() {
  while (oldest_ != kNone) {
    const int32_t block = oldest_;
    unlink_cached(block);
    unindex(block);
    push_blank(block);
  }
}

void BlockPool::unindex(int32_t block) {
  Block& entry = at(block);
  int32_t* link = &bucket(entry.hash);
  while (*link != block) link = &at(*link).chained;
  *link = entry.chained;
  entry.chained = kNone;
  entry.indexed = false;
}

void BlockPool::push_blank(int32_t block) {
  at(block).newer = blank_;
  blank_ = block;
  ++n_blank_;
}

void BlockPool::push_cached(int32_t block) {
  Block& entry = at(block);
  entry.older = newest_;
  entry.newer = kNone;
  (newest_ == kNone ? oldest_ : at(newest_).newer) = block;
  newest_ = block;
  ++n_cached_;
}

void BlockPool::unlink_cached(int32_t block) {
  const Block& entry = at(block);
  (entry.older == kNone ? oldest_ : at(entry.older).newer) = entry.newer;
  (entry.newer == kNone ? newest_ : at(entry.newer).older) = entry.older;
  --n_cached_;
}

void BlockPool::check(std::span<const int32_t> owned) const {
  std::vector<int32_t> owners(blocks_.size(), 0);
  for (const int32_t block : owned) {
    verify(block >= 0 && block < n_blocks(), "block {} of {} is owned", block, n_blocks());
    ++owners[static_cast<size_t>(block)];
  }
  int64_t free = 0;
  for (size_t block = 0; block < blocks_.size(); ++block) {
    verify(blocks_[block].references == owners[block], "block {} has {} references and {} owners", block,
           blocks_[block].references, owners[block]);
    if (owners[block] == 0) ++free;
  }
  verify(free == free_blocks(), "{} blocks have no owner, {} are free", free, free_blocks());
  check_lists();
  check_index();
}

void BlockPool::check_lists() const {
  // Each list is as long as its count and holds blocks of its own state alone; no block occurs twice in one,
  // since only one block can lead to it. As check() has compared the sum, no free block is in neither.
  int64_t count = 0;
  for (int32_t block = blank_; block != kNone; block = at(block).newer) {
    verify(++count <= n_blank_, "more than {} blocks are blank", n_blank_);
    verify(at(block).references == 0 && !at(block).indexed, "block {} is not blank", block);
  }
  verify(count == n_blank_, "{} of {} blank blocks are listed", count, n_blank_);
  count = 0;
  int32_t last = kNone;
  for (int32_t block = oldest_; block != kNone; block = at(block).newer) {
    verify(++count <= n_cached_, "more than {} blocks are cached", n_cached_);
    verify(at(block).references == 0 && at(block).indexed, "block {} is not cached", block);
    verify(at(block).older == last, "block {} comes after {} but names {}", block, last, at(block).older);
    last = block;
  }
  verify(count == n_cached_ && newest_ == last, "{} of {} cached blocks are listed", count, n_cached_);
}

void BlockPool::check_index() const {
  int64_t indexed = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (!blocks_[i].indexed) continue;
    ++indexed;
    const auto block = static_cast<int32_t>(i);
    const Block& entry = blocks_[i];
    verify(prefix_caching_ && entry.hash == hash_of(entry.previous, tokens_of(block)) &&
               find(entry.hash, entry.previous, tokens_of(block)) == block,
           "the index does not find block {}", block);
  }
  int64_t chained = 0;
  for (const int32_t first : buckets_) {
    for (int32_t block = first; block != kNone; block = at(block).chained) {
      verify(++chained <= indexed && at(block).indexed, "the index holds more than {} blocks", indexed);
    }
  }
  verify(chained == indexed, "the index holds {} of {} blocks", chained, indexed);
}

}  // namespace atom
