#include "kvcache/block_pool.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <stdexcept>

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom {
namespace {

using Tokens = std::vector<int32_t>;

/// As many blocks of 4 as there are digits: block "7" holds 7, 7, 7, 7.
Tokens tokens(std::string_view blocks) {
  Tokens result;
  for (const char digit : blocks) result.insert(result.end(), 4, digit - '0');
  return result;
}

constexpr int64_t kAll = 1 << 20;

/// Allocates and indexes the blocks of `digits` as one sequence; they are owned once.
Tokens add(BlockPool& pool, std::string_view digits) {
  Tokens blocks;
  PrefixNode node = kRootPrefix;
  for (const char digit : digits) {
    blocks.push_back(pool.allocate());
    node = pool.insert(node, blocks.back(), tokens({&digit, 1}));
    EXPECT_NE(node, kNoPrefix);
    EXPECT_EQ(node, pool.node(blocks.back()));
  }
  return blocks;
}

/// As a sequence gives its blocks back: from the end.
void release(BlockPool& pool, const Tokens& blocks) {
  for (size_t i = blocks.size(); i-- > 0;) pool.release(blocks[i]);
}

uint64_t always_the_same(PrefixNode, std::span<const int32_t>) {
  return 42;
}

TEST(HashBlock, DependsOnEveryTokenTheirOrderAndThePredecessor) {
  std::set<uint64_t> hashes;
  const Tokens base = {1, 2, 3, 4, 5};
  hashes.insert(hash_block(kRootPrefix, base));
  for (size_t i = 0; i < base.size(); ++i) {
    Tokens other = base;
    other[i] = 9;
    hashes.insert(hash_block(kRootPrefix, other));
  }
  hashes.insert(hash_block(kRootPrefix, Tokens{2, 1, 3, 4, 5}));
  hashes.insert(hash_block(kRootPrefix, Tokens{3, 4, 1, 2, 5}));
  hashes.insert(hash_block(kRootPrefix, Tokens{1, 2, 3, 4, 5, 0}));
  hashes.insert(hash_block(kRootPrefix, Tokens{1, 2, 3, 4}));
  hashes.insert(hash_block(kRootPrefix + 1, base));
  EXPECT_EQ(hashes.size(), 11u);
}

TEST(HashBlock, SpreadsSmallTokensOverAllBuckets) {
  // 1,024 blocks that differ little, over as many buckets: with a good hash the fullest has about 6.
  std::vector<int> buckets(1024);
  for (int32_t a = 0; a < 32; ++a) {
    for (int32_t b = 0; b < 32; ++b) ++buckets[hash_block(kRootPrefix, Tokens{a, 0, b, 0}) % 1024];
  }
  EXPECT_LE(std::ranges::max(buckets), 10);
}

TEST(BlockPool, HandsOutEveryBlockOnceThenIsFull) {
  BlockPool pool(3, 4);
  EXPECT_EQ(pool.allocate(), 0);
  EXPECT_EQ(pool.allocate(), 1);
  EXPECT_EQ(pool.allocate(), 2);
  EXPECT_EQ(pool.free_blocks(), 0);
  EXPECT_THROW(pool.allocate(), Error);
  pool.check(Tokens{0, 1, 2});
  pool.release(1);
  EXPECT_EQ(pool.free_blocks(), 1);
  EXPECT_EQ(pool.references(1), 0);
  EXPECT_EQ(pool.allocate(), 1);
}

TEST(BlockPool, APoolWithoutBlocksIsFull) {
  BlockPool pool(0, 4);
  EXPECT_EQ(pool.free_blocks(), 0);
  EXPECT_THROW(pool.allocate(), Error);
  EXPECT_TRUE(pool.match(tokens("12"), kAll).blocks.empty());
  pool.forget_cached();
  pool.check({});
}

TEST(BlockPool, MoreBlocksThanCanBeNumberedAreAnError) {
  EXPECT_THROW(BlockPool(int64_t{1} << 31, 1), Error);
}

TEST(BlockPool, ABlockIsFreeWhenItsLastOwnerLeaves) {
  BlockPool pool(2, 4);
  const int32_t block = pool.allocate();
  pool.retain(block);
  EXPECT_EQ(pool.references(block), 2);
  pool.check(Tokens{block, block});
  pool.release(block);
  EXPECT_EQ(pool.free_blocks(), 1);
  pool.release(block);
  EXPECT_EQ(pool.free_blocks(), 2);
  EXPECT_EQ(pool.cached_blocks(), 0);
  pool.check({});
}

TEST(BlockPool, MatchesTheLongestIndexedBeginningInWholeBlocks) {
  BlockPool pool(8, 4);
  const Tokens blocks = add(pool, "123");
  Tokens prompt = tokens("1234");
  EXPECT_EQ(pool.count_prefix(prompt, kAll).tokens, 12);
  EXPECT_EQ(pool.count_prefix(prompt, 12).tokens, 12);
  EXPECT_EQ(pool.count_prefix(prompt, 11).tokens, 8);
  EXPECT_EQ(pool.count_prefix(prompt, 3).tokens, 0);
  EXPECT_EQ(pool.count_prefix(std::span(prompt).first(11), kAll).tokens, 8);
  prompt[5] = 9;
  EXPECT_EQ(pool.count_prefix(prompt, kAll).tokens, 4);
  EXPECT_EQ(pool.count_prefix(tokens("23"), kAll).tokens, 0);
  EXPECT_EQ(pool.count_prefix(tokens("13"), kAll).tokens, 4);
  EXPECT_EQ(pool.count_prefix({}, kAll).tokens, 0);

  const PrefixMatch match = pool.match(tokens("1245"), kAll);
  EXPECT_EQ(match.blocks, (Tokens{blocks[0], blocks[1]}));
  EXPECT_EQ(match.node, pool.node(blocks[1]));
  EXPECT_EQ(pool.references(blocks[0]), 2);
  EXPECT_EQ(pool.references(blocks[2]), 1);
  EXPECT_EQ(pool.match(tokens("9"), kAll).node, kRootPrefix);
  pool.check(Tokens{blocks[0], blocks[0], blocks[1], blocks[1], blocks[2]});
}

TEST(BlockPool, TheSameTokensBehindOthersAreOtherBlocks) {
  BlockPool pool(8, 4);
  const Tokens one = add(pool, "17");
  const Tokens two = add(pool, "27");
  EXPECT_EQ(pool.match(tokens("17"), kAll).blocks, one);
  EXPECT_EQ(pool.match(tokens("27"), kAll).blocks, two);
}

TEST(BlockPool, CachedBlocksAreFreeAndCanBeTakenUpAgain) {
  BlockPool pool(4, 4);
  const Tokens blocks = add(pool, "12");
  release(pool, blocks);
  EXPECT_EQ(pool.cached_blocks(), 2);
  EXPECT_EQ(pool.free_blocks(), 4);
  pool.check({});
  EXPECT_EQ(pool.match(tokens("12"), kAll).blocks, blocks);
  EXPECT_EQ(pool.cached_blocks(), 0);
  EXPECT_EQ(pool.free_blocks(), 2);
  pool.check(blocks);
}

TEST(BlockPool, BlankBlocksGoFirstThenTheCachedOnesReleasedLongestAgo) {
  BlockPool pool(6, 4);
  const Tokens one = add(pool, "12");
  const Tokens two = add(pool, "34");
  release(pool, one);
  release(pool, two);
  // Used again: now the newest.
  release(pool, pool.match(tokens("1"), kAll).blocks);
  EXPECT_EQ(pool.allocate(), 4);
  EXPECT_EQ(pool.allocate(), 5);
  EXPECT_EQ(pool.allocate(), one[1]);
  EXPECT_EQ(pool.count_prefix(tokens("12"), kAll).tokens, 4);
  EXPECT_EQ(pool.allocate(), two[1]);
  EXPECT_EQ(pool.count_prefix(tokens("34"), kAll).tokens, 4);
  EXPECT_EQ(pool.allocate(), two[0]);
  EXPECT_EQ(pool.allocate(), one[0]);
  EXPECT_THROW(pool.allocate(), Error);
  EXPECT_EQ(pool.count_prefix(tokens("12"), kAll).tokens, 0);
  pool.check(Tokens{0, 1, 2, 3, 4, 5});
}

TEST(BlockPool, LookingDoesNotKeepABlock) {
  BlockPool pool(2, 4);
  const Tokens one = add(pool, "1");
  const Tokens two = add(pool, "2");
  release(pool, one);
  release(pool, two);
  EXPECT_EQ(pool.count_prefix(tokens("1"), kAll).tokens, 4);
  EXPECT_EQ(pool.allocate(), one[0]);
}

TEST(BlockPool, ATwinIsNotIndexed) {
  BlockPool pool(4, 4);
  const Tokens first = add(pool, "1");
  const int32_t twin = pool.allocate();
  EXPECT_EQ(pool.insert(kRootPrefix, twin, tokens("1")), pool.node(first[0]));
  EXPECT_EQ(pool.node(twin), kNoPrefix);
  EXPECT_EQ(pool.insert(kRootPrefix, first[0], tokens("1")), pool.node(first[0]));
  pool.check(Tokens{first[0], twin});
  pool.release(twin);
  EXPECT_EQ(pool.cached_blocks(), 0);
  // The twin's owner may take the one that is indexed, also when it is only cached.
  pool.release(first[0]);
  EXPECT_EQ(pool.take(pool.node(first[0])), first[0]);
  EXPECT_EQ(pool.take(pool.node(first[0])), first[0]);
  pool.check(Tokens{first[0], first[0]});
}

TEST(BlockPool, ANodeIsNeverUsedAgain) {
  BlockPool pool(1, 4);
  std::set<PrefixNode> nodes = {kNoPrefix, kRootPrefix};
  for (int i = 0; i < 100; ++i) {
    const int32_t block = pool.allocate();
    EXPECT_TRUE(nodes.insert(pool.insert(kRootPrefix, block, tokens("1"))).second);
    pool.forget(block);
    EXPECT_TRUE(nodes.insert(pool.insert(kRootPrefix, block, tokens(i % 2 == 0 ? "1" : "2"))).second);
    pool.release(block);
    if (i % 3 == 0) pool.forget_cached();
  }
}

TEST(BlockPool, NothingComesBehindAForgottenPredecessor) {
  BlockPool pool(4, 4);
  const Tokens blocks = add(pool, "12");
  const PrefixNode node = pool.node(blocks[0]);
  pool.forget(blocks[0]);
  EXPECT_EQ(pool.node(blocks[0]), kNoPrefix);
  const int32_t next = pool.allocate();
  EXPECT_EQ(pool.insert(node, next, tokens("3")), kNoPrefix);
  EXPECT_EQ(pool.insert(kNoPrefix, next, tokens("3")), kNoPrefix);
  EXPECT_EQ(pool.insert(PrefixNode{77} << 32 | 99, next, tokens("3")), kNoPrefix);
  EXPECT_EQ(pool.insert(PrefixNode{1} << 32 | 0xFFFFFFFF, next, tokens("3")), kNoPrefix);
  // The same tokens once more are another node, behind which the old successor does not come.
  EXPECT_NE(pool.insert(kRootPrefix, blocks[0], tokens("1")), node);
  EXPECT_EQ(pool.count_prefix(tokens("12"), kAll).tokens, 4);
  pool.check(Tokens{blocks[0], blocks[1], next});
  release(pool, {blocks[0], blocks[1], next});
  EXPECT_EQ(pool.cached_blocks(), 2);
  pool.check({});
}

TEST(BlockPool, ABlockThatHoldsOtherTokensLosesItsOldOnes) {
  BlockPool pool(2, 4);
  const Tokens blocks = add(pool, "1");
  pool.insert(kRootPrefix, blocks[0], tokens("2"));
  EXPECT_EQ(pool.count_prefix(tokens("1"), kAll).tokens, 0);
  EXPECT_EQ(pool.count_prefix(tokens("2"), kAll).tokens, 4);
  pool.check(blocks);
}

TEST(BlockPool, ForgetCachedKeepsWhatIsOwned) {
  BlockPool pool(4, 4);
  const Tokens blocks = add(pool, "123");
  pool.release(blocks[2]);
  pool.release(blocks[1]);
  pool.forget_cached();
  EXPECT_EQ(pool.cached_blocks(), 0);
  EXPECT_EQ(pool.free_blocks(), 3);
  EXPECT_EQ(pool.count_prefix(tokens("123"), kAll).tokens, 4);
  pool.check(Tokens{blocks[0]});
}

TEST(BlockPool, WithoutPrefixCachingNothingIsKept) {
  BlockPool pool(2, 4, false);
  EXPECT_FALSE(pool.prefix_caching());
  const int32_t block = pool.allocate();
  EXPECT_EQ(pool.insert(kRootPrefix, block, tokens("1")), kNoPrefix);
  EXPECT_EQ(pool.count_prefix(tokens("1"), kAll).tokens, 0);
  pool.check(Tokens{block});
  pool.release(block);
  EXPECT_EQ(pool.cached_blocks(), 0);
  pool.forget_cached();
  pool.check({});
}

TEST(BlockPool, CollidingHashesGiveNoWrongBlocks) {
  BlockPool pool(16, 4, true, always_the_same);
  const Tokens one = add(pool, "123");
  const Tokens two = add(pool, "21");
  const Tokens three = add(pool, "33");
  EXPECT_EQ(pool.match(tokens("123"), kAll).blocks, one);
  EXPECT_EQ(pool.match(tokens("2133"), kAll).blocks, two);
  EXPECT_EQ(pool.match(tokens("331"), kAll).blocks, three);
  EXPECT_EQ(pool.count_prefix(tokens("13"), kAll).tokens, 4);
  EXPECT_EQ(pool.count_prefix(tokens("4"), kAll).tokens, 0);
  // From the middle, the end and the beginning of the one chain.
  for (const int32_t block : {two[0], one[0], three[1]}) pool.forget(block);
  EXPECT_EQ(pool.count_prefix(tokens("123"), kAll).tokens, 0);
  EXPECT_EQ(pool.count_prefix(tokens("21"), kAll).tokens, 0);
  EXPECT_EQ(pool.count_prefix(tokens("33"), kAll).tokens, 4);
}

TEST(BlockPool, TheCheckFindsWrongOwners) {
  BlockPool pool(3, 4);
  const int32_t block = pool.allocate();
  pool.check(Tokens{block});
  EXPECT_THROW(pool.check({}), std::logic_error);
  EXPECT_THROW(pool.check(Tokens{block, block}), std::logic_error);
  EXPECT_THROW(pool.check(Tokens{block, 2}), std::logic_error);
  EXPECT_THROW(pool.check(Tokens{block, 3}), std::logic_error);
  EXPECT_THROW(pool.check(Tokens{-1}), std::logic_error);
}

#ifndef NDEBUG
TEST(BlockPoolDeathTest, MisuseIsABug) {
  BlockPool pool(2, 4);
  const int32_t block = pool.allocate();
  pool.release(block);
  EXPECT_DEATH(pool.release(block), "references");
  EXPECT_DEATH(pool.retain(block), "references");
  EXPECT_DEATH(pool.forget(block), "references");
  EXPECT_DEATH(pool.insert(kRootPrefix, block, tokens("1")), "references");
  EXPECT_DEATH(pool.take(kRootPrefix), "kRootPrefix");
  EXPECT_DEATH(pool.release(7), "n_blocks");
}
#endif

}  // namespace
}  // namespace atom
