#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "kvcache/block_pool.h"

namespace atom {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kBlocks = 12;
constexpr int64_t kBlockSize = 2;

/// What a BlockPool must do, without a list, a hash or a count that could be out of step.
class Model {
 public:
  std::vector<int32_t> blank;   // the last one goes next
  std::vector<int32_t> cached;  // in order of release
  std::map<int32_t, int> references;
  struct Entry {
    PrefixNode node;
    PrefixNode previous;
    Tokens tokens;
  };
  std::map<int32_t, Entry> index;

  Model() {
    for (int32_t block = kBlocks; block-- > 0;) blank.push_back(block);
  }

  const int32_t* next() const {
    if (!blank.empty()) return &blank.back();
    return cached.empty() ? nullptr : &cached.front();
  }
  void allocate() {
    const int32_t block = *next();
    index.erase(block);
    std::erase(blank, block);
    std::erase(cached, block);
    references[block] = 1;
  }
  void retain(int32_t block) {
    std::erase(cached, block);
    ++references[block];
  }
  void release(int32_t block) {
    if (--references[block] > 0) return;
    references.erase(block);
    (index.contains(block) ? cached : blank).push_back(block);
  }
  bool knows(PrefixNode node) const {
    return node == kRootPrefix ||
           std::ranges::any_of(index, [&](const auto& item) { return item.second.node == node; });
  }
  /// The block of these tokens behind `previous`, or -1.
  int32_t find(PrefixNode previous, const Tokens& tokens) const {
    for (const auto& [block, entry] : index) {
      if (entry.previous == previous && entry.tokens == tokens) return block;
    }
    return -1;
  }
  std::vector<int32_t> match(const Tokens& tokens, int64_t most) const {
    std::vector<int32_t> blocks;
    PrefixNode previous = kRootPrefix;
    for (auto i = static_cast<int64_t>(kBlockSize); i <= std::min(most, static_cast<int64_t>(tokens.size()));
         i += kBlockSize) {
      const int32_t block = find(previous, Tokens(tokens.begin() + i - kBlockSize, tokens.begin() + i));
      if (block < 0) break;
      blocks.push_back(block);
      previous = index.at(block).node;
    }
    return blocks;
  }
};

/// Does the same to a pool and its model, and compares after every step.
class PoolRun {
 public:
  PoolRun(uint64_t seed, BlockHash hash) : random_(seed), pool_(kBlocks, kBlockSize, true, hash) {}

  void step() {
    // The more is owned the more is given back, so that all of full, cached and blank happen.
    if (random_.below(kBlocks) < owned_.size()) {
      release();
      compare();
      return;
    }
    switch (random_.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        allocate();
        break;
      case 4:
      case 5:
        match();
        break;
      case 6:
      case 7:
      case 8:
      case 9:
        if (!owned_.empty()) insert(owned_[random_.below(owned_.size())]);
        break;
      case 10:
        if (!owned_.empty()) own(owned_[random_.below(owned_.size())], true);
        break;
      case 11:
        take();
        break;
      case 12:
        if (!owned_.empty() && random_.below(4) == 0) forget(owned_[random_.below(owned_.size())]);
        break;
      case 13:
        if (random_.below(64) == 0) forget_cached();
        break;
      default:
        release();
    }
    compare();
  }

  int64_t matched() const { return matched_; }
  int64_t evicted() const { return evicted_; }

 private:
  Tokens random_tokens(size_t count) {
    Tokens tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_.below(2));
    return tokens;
  }

  void allocate() {
    const int32_t* next = model_.next();
    if (next == nullptr) {
      EXPECT_THROW(pool_.allocate(), Error);
      return;
    }
    if (model_.blank.empty()) ++evicted_;
    const int32_t block = *next;
    model_.allocate();
    ASSERT_EQ(pool_.allocate(), block);
    owned_.push_back(block);
  }

  void own(int32_t block, bool in_pool) {
    if (in_pool) pool_.retain(block);
    model_.retain(block);
    owned_.push_back(block);
  }

  void release() {
    if (owned_.empty()) return;
    const size_t i = random_.below(owned_.size());
    pool_.release(owned_[i]);
    model_.release(owned_[i]);
    owned_.erase(owned_.begin() + static_cast<std::ptrdiff_t>(i));
  }

  void match() {
    const Tokens tokens = random_tokens(random_.below(10));
    const auto most = static_cast<int64_t>(random_.below(12));
    const std::vector<int32_t> expected = model_.match(tokens, most);
    const PrefixCount count = pool_.count_prefix(tokens, most);
    ASSERT_EQ(count.tokens, static_cast<int64_t>(expected.size()) * kBlockSize);
    ASSERT_EQ(count.free_blocks, std::ranges::count_if(expected, [&](int32_t block) {
                return std::ranges::find(owned_, block) == owned_.end();
              }));
    const PrefixMatch match = pool_.match(tokens, most);
    ASSERT_EQ(match.blocks, expected);
    ASSERT_EQ(match.node, expected.empty() ? kRootPrefix : model_.index.at(expected.back()).node);
    for (const int32_t block : expected) own(block, false);
    matched_ += static_cast<int64_t>(expected.size());
  }

  void insert(int32_t block) {
    // Behind the beginning, something that the index knows, or something that it knew once.
    PrefixNode previous = kRootPrefix;
    if (!nodes_.empty() && random_.below(3) != 0) previous = nodes_[random_.below(nodes_.size())];
    const Tokens tokens = random_tokens(kBlockSize);
    const PrefixNode node = pool_.insert(previous, block, tokens);
    if (!model_.knows(previous)) {
      ASSERT_EQ(node, kNoPrefix);
      return;
    }
    const int32_t known = model_.find(previous, tokens);
    if (known >= 0) {
      ASSERT_EQ(node, model_.index.at(known).node);
      return;
    }
    ASSERT_TRUE(node != kNoPrefix && node != kRootPrefix && std::ranges::count(nodes_, node) == 0);
    nodes_.push_back(node);
    if (nodes_.size() > kBlocks) nodes_.erase(nodes_.begin());
    model_.index[block] = {node, previous, tokens};
  }

  void take() {
    if (model_.index.empty()) return;
    auto it = model_.index.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(model_.index.size())));
    ASSERT_EQ(pool_.take(it->second.node), it->first);
    own(it->first, false);
  }

  void forget(int32_t block) {
    pool_.forget(block);
    model_.index.erase(block);
  }

  void forget_cached() {
    pool_.forget_cached();
    for (const int32_t block : model_.cached) {
      model_.index.erase(block);
      model_.blank.push_back(block);
    }
    model_.cached.clear();
  }

  void compare() const {
    ASSERT_NO_THROW(pool_.check(owned_));
    ASSERT_EQ(pool_.cached_blocks(), static_cast<int64_t>(model_.cached.size()));
    ASSERT_EQ(pool_.free_blocks(), static_cast<int64_t>(model_.cached.size() + model_.blank.size()));
    for (int32_t block = 0; block < kBlocks; ++block) {
      const auto references = model_.references.find(block);
      ASSERT_EQ(pool_.references(block), references == model_.references.end() ? 0 : references->second);
      const auto entry = model_.index.find(block);
      ASSERT_EQ(pool_.node(block), entry == model_.index.end() ? kNoPrefix : entry->second.node);
    }
  }

  Random random_;
  BlockPool pool_;
  Model model_;
  std::vector<int32_t> owned_;
  std::vector<PrefixNode> nodes_;
  int64_t matched_ = 0;
  int64_t evicted_ = 0;
};

uint64_t constant_hash(PrefixNode, std::span<const int32_t>) {
  return 7;
}
uint64_t hash_of_two_values(PrefixNode, std::span<const int32_t> tokens) {
  return static_cast<uint64_t>(tokens[0]);
}

class BlockPoolRandom : public ::testing::TestWithParam<BlockHash> {};

TEST_P(BlockPoolRandom, DoesWhatTheModelDoes) {
  int64_t matched = 0;
  int64_t evicted = 0;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    PoolRun run(seed, GetParam());
    for (int i = 0; i < 20'000; ++i) {
      run.step();
      if (HasFatalFailure()) FAIL() << "seed " << seed << ", step " << i;
    }
    matched += run.matched();
    evicted += run.evicted();
  }
  // What it is about did happen.
  EXPECT_GT(matched, 1000);
  EXPECT_GT(evicted, 1000);
}

INSTANTIATE_TEST_SUITE_P(Hashes, BlockPoolRandom,
                         ::testing::Values(hash_block, constant_hash, hash_of_two_values));

}  // namespace
}  // namespace atom
