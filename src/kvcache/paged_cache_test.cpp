#include "kvcache/paged_cache.h"

#include <cstring>
#include <list>
#include <set>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace atom {
namespace {

constexpr KvShape kShape{3, 2, 8};

TEST(KvFormat, NamesRoundTrip) {
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    EXPECT_EQ(parse_kv_format(name_of(format)), format);
  }
  EXPECT_THROW(parse_kv_format("int5"), UsageError);
  EXPECT_THROW(parse_kv_format(""), UsageError);
}

TEST(PagedKvCache, BytesCountKeysValuesAndParameters) {
  // 3 layers * 2 heads * (keys and values of 8 elements, and for integers two fp16 parameters each).
  EXPECT_EQ(kv_bytes_per_token(kShape, KvFormat::f32), 3 * 2 * 2 * 32);
  EXPECT_EQ(kv_bytes_per_token(kShape, KvFormat::f16), 3 * 2 * 2 * 16);
  EXPECT_EQ(kv_bytes_per_token(kShape, KvFormat::int8), 3 * 2 * 2 * (8 + 4));
  EXPECT_EQ(kv_bytes_per_token(kShape, KvFormat::int4), 3 * 2 * 2 * (4 + 4));
  const PagedKvCache cache(kShape, KvFormat::int4, 5, 4);
  EXPECT_EQ(cache.bytes(), 5 * 4 * 3 * 2 * 2 * (4 + 4));
}

TEST(PagedKvCache, FourBitsHoldThreeAndAHalfTimesTheTokens) {
  EXPECT_EQ(kv_capacity_vs_f16({30, 3, 64}, KvFormat::int4), 256.0 / 72);
  EXPECT_GE(kv_capacity_vs_f16({30, 3, 64}, KvFormat::int4), 3.5);
  EXPECT_GE(kv_capacity_vs_f16({32, 8, 128}, KvFormat::int4), 3.7);
  EXPECT_EQ(kv_capacity_vs_f16({32, 8, 128}, KvFormat::f16), 1);
}

TEST(PagedKvCache, LayersAreViewsOfTheirOwnMemory) {
  PagedKvCache cache(kShape, KvFormat::int4, 5, 4);
  std::set<std::byte*> starts;
  for (int64_t i = 0; i < kShape.n_layers; ++i) {
    const KvLayerView view = cache.layer(i);
    EXPECT_EQ(view.format, KvFormat::int4);
    EXPECT_EQ(view.n_blocks, 5);
    EXPECT_EQ(view.block_size, 4);
    EXPECT_EQ(view.n_kv_heads, 2);
    EXPECT_EQ(view.head_dim, 8);
    EXPECT_EQ(view.row_bytes(), 4);
    ASSERT_NE(view.key_params, nullptr);
    ASSERT_NE(view.value_params, nullptr);
    starts.insert(view.keys);
    starts.insert(view.values);
    // The last row lies inside of the memory.
    const int64_t last = view.row_index(4, 1, 3);
    view.keys[(last + 1) * view.row_bytes() - 1] = std::byte{1};
    view.value_params[2 * last + 1] = 1;
  }
  EXPECT_EQ(starts.size(), 6u);
}

TEST(PagedKvCache, FloatFormatsHaveNoParameters) {
  PagedKvCache cache(kShape, KvFormat::f16, 1);
  EXPECT_EQ(cache.layer(0).key_params, nullptr);
  EXPECT_EQ(cache.layer(0).row_bytes(), 16);
}

TEST(PagedKvCache, ACacheWithoutBlocksIsFull) {
  PagedKvCache cache(kShape, KvFormat::f16, 0);
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(cache.free_blocks(), 0);
  BlockTable table(cache);
  std::vector<int64_t> slots;
  EXPECT_THROW(table.append(1, slots), Error);
}

std::string error_of(int64_t n_blocks, int64_t block_size, Memory* memory = nullptr) {
  try {
    PagedKvCache(kShape, KvFormat::f32, n_blocks, block_size, memory);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(PagedKvCache, SizesBeyondMemoryAreAnError) {
  // Products that do not fit in 64 bits, among them one that comes out as 0.
  EXPECT_EQ(error_of(int64_t{1} << 60, 16),
            "no memory for a KV cache of 1152921504606846976 blocks of 16 tokens: more than 2^63 bytes");
  EXPECT_NE(error_of(int64_t{1} << 62, 4).find("no memory for a KV cache"), std::string::npos);
  EXPECT_NE(error_of(INT64_MAX, 1).find("no memory for a KV cache"), std::string::npos);
}

TEST(BlockTable, SlotsFollowTheBlocks) {
  PagedKvCache cache(kShape, KvFormat::f16, 4, 4);
  BlockTable first(cache);
  BlockTable second(cache);
  std::vector<int64_t> slots;
  first.append(3, slots);
  second.append(1, slots);
  first.append(3, slots);
  EXPECT_EQ(first.length(), 6);
  EXPECT_EQ(second.length(), 1);
  // Blocks are handed out in ascending order: 0 to the first table, 1 to the second, 2 to the first.
  EXPECT_EQ(slots, (std::vector<int64_t>{0, 1, 2, 4, 3, 8, 9}));
  EXPECT_EQ(first.blocks()[0], 0);
  EXPECT_EQ(first.blocks()[1], 2);
  EXPECT_EQ(second.blocks()[0], 1);
  EXPECT_EQ(cache.free_blocks(), 1);
}

TEST(BlockTable, AppendThatDoesNotFitChangesNothing) {
  PagedKvCache cache(kShape, KvFormat::f16, 2, 4);
  BlockTable table(cache);
  std::vector<int64_t> slots;
  table.append(3, slots);
  EXPECT_THROW(table.append(6, slots), Error);
  EXPECT_EQ(table.length(), 3);
  EXPECT_EQ(slots.size(), 3u);
  EXPECT_EQ(cache.free_blocks(), 1);
  table.append(5, slots);
  EXPECT_EQ(table.length(), 8);
  EXPECT_THROW(table.append(1, slots), Error);
  table.append(0, slots);
  EXPECT_EQ(table.length(), 8);
}

TEST(BlockTable, TruncateGivesBackWholeBlocksOnly) {
  PagedKvCache cache(kShape, KvFormat::f16, 4, 4);
  BlockTable table(cache);
  std::vector<int64_t> slots;
  table.append(13, slots);
  EXPECT_EQ(cache.free_blocks(), 0);
  table.truncate(9);
  EXPECT_EQ(cache.free_blocks(), 1);
  table.truncate(8);
  EXPECT_EQ(cache.free_blocks(), 2);
  table.truncate(8);
  EXPECT_EQ(table.length(), 8);
  slots.clear();
  table.append(1, slots);
  EXPECT_EQ(slots.size(), 1u);
  EXPECT_EQ(slots[0] % 4, 0);
  table.clear();
  EXPECT_EQ(table.length(), 0);
  EXPECT_EQ(cache.free_blocks(), 4);
}

TEST(BlockTable, GivesItsBlocksBackWhenItGoes) {
  PagedKvCache cache(kShape, KvFormat::f16, 4, 4);
  std::vector<int64_t> slots;
  {
    BlockTable table(cache);
    table.append(9, slots);
    const BlockTable moved(std::move(table));
    EXPECT_EQ(moved.length(), 9);
    EXPECT_EQ(table.length(), 0);  // NOLINT(bugprone-use-after-move): what is left is an empty table
    EXPECT_EQ(cache.free_blocks(), 1);
  }
  EXPECT_EQ(cache.free_blocks(), 4);
}

/// Random bytes everywhere.
void fill(PagedKvCache& cache) {
  Random random(1);
  const auto fill_bytes = [&](void* data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; ++i)
      static_cast<std::byte*>(data)[i] = static_cast<std::byte>(random.next());
  };
  for (int64_t i = 0; i < cache.shape().n_layers; ++i) {
    const KvLayerView view = cache.layer(i);
    const int64_t rows = cache.n_blocks() * view.n_kv_heads * view.block_size;
    fill_bytes(view.keys, rows * view.row_bytes());
    fill_bytes(view.values, rows * view.row_bytes());
    if (view.key_params == nullptr) continue;
    fill_bytes(view.key_params, rows * 4);
    fill_bytes(view.value_params, rows * 4);
  }
}

/// All that a block holds, in all layers.
std::vector<std::byte> content(PagedKvCache& cache, int32_t block) {
  std::vector<std::byte> result;
  const auto add = [&](const std::byte* data, int64_t bytes) {
    result.insert(result.end(), data + block * bytes, data + (block + 1) * bytes);
  };
  for (int64_t i = 0; i < cache.shape().n_layers; ++i) {
    const KvLayerView view = cache.layer(i);
    const int64_t rows = view.n_kv_heads * view.block_size;
    add(view.keys, rows * view.row_bytes());
    add(view.values, rows * view.row_bytes());
    if (view.key_params == nullptr) continue;
    add(reinterpret_cast<const std::byte*>(view.key_params), rows * 4);
    add(reinterpret_cast<const std::byte*>(view.value_params), rows * 4);
  }
  return result;
}

/// Memory of a device that happens to be the host's, which counts what is copied within it.
class FakeDevice final : public Memory {
 public:
  void* allocate(size_t bytes) override {
    blocks_.emplace_back(bytes);
    return blocks_.back().data();
  }
  void release(void* data) noexcept override {
    std::erase_if(blocks_, [&](const auto& block) { return block.data() == data; });
  }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    copied += static_cast<int64_t>(bytes);
  }
  int64_t copied = 0;

 private:
  std::list<Buffer<std::byte>> blocks_;
};

TEST(PagedKvCache, CopiesABlockInEveryLayerAndNothingElse) {
  FakeDevice device;
  for (Memory* memory : {static_cast<Memory*>(nullptr), static_cast<Memory*>(&device)}) {
    for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
      PagedKvCache cache(kShape, format, 4, 4, memory);
      fill(cache);
      std::vector<std::vector<std::byte>> before;
      for (int32_t block = 0; block < 4; ++block) before.push_back(content(cache, block));
      ASSERT_NE(before[1], before[2]);
      device.copied = 0;
      cache.copy_block(1, 2);
      EXPECT_EQ(content(cache, 0), before[0]);
      EXPECT_EQ(content(cache, 1), before[1]);
      EXPECT_EQ(content(cache, 2), before[1]);
      EXPECT_EQ(content(cache, 3), before[3]);
      EXPECT_EQ(device.copied, memory == nullptr ? 0 : cache.bytes() / 4);
    }
  }
}

/// Memory of which nothing is left, for which it throws `Thrown`.
template <class Thrown>
class FullMemory final : public Memory {
 public:
  explicit FullMemory(Thrown thrown) : thrown_(std::move(thrown)) {}
  void* allocate(size_t) override { throw thrown_; }
  void release(void*) noexcept override {}
  void upload(void*, const void*, size_t) override {}
  void download(void*, const void*, size_t) override {}
  void copy(void*, const void*, size_t) override {}

 private:
  Thrown thrown_;
};

TEST(PagedKvCache, MemoryThatIsFullIsAnError) {
  FullMemory host{std::bad_alloc()};
  EXPECT_EQ(error_of(1, 4, &host), "no memory for a KV cache of 4 tokens (1536 bytes in f32)");
  FullMemory device{OutOfDeviceMemory("3 of 4 bytes are free")};
  EXPECT_EQ(error_of(1, 4, &device),
            "no memory for a KV cache of 4 tokens (1536 bytes in f32): 3 of 4 bytes are free");
}

/// A table of blocks of 4 tokens which are written one by one.
class SharedBlocks : public ::testing::Test {
 protected:
  void append(BlockTable& table, int64_t count) { table.append(count, slots_); }
  std::vector<int32_t> owned(std::initializer_list<const BlockTable*> tables) {
    std::vector<int32_t> blocks;
    for (const BlockTable* table : tables) {
      blocks.insert(blocks.end(), table->block_list().begin(), table->block_list().end());
    }
    return blocks;
  }

  PagedKvCache cache_{kShape, KvFormat::int4, 8, 4};
  BlockPool& pool_ = cache_.pool();
  std::vector<int64_t> slots_;
  const std::vector<int32_t> tokens_ = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
};

TEST_F(SharedBlocks, AForkSharesUntilItWrites) {
  fill(cache_);
  BlockTable table(cache_);
  append(table, 6);
  EXPECT_EQ(table.blocks_for(2), 0);
  BlockTable fork = table.fork();
  EXPECT_EQ(fork.length(), 6);
  EXPECT_EQ(cache_.free_blocks(), 6);
  pool_.check(owned({&table, &fork}));
  // The first who writes to the shared block copies it, the other one has it alone then.
  const int32_t shared = table.blocks()[1];
  const auto before = content(cache_, shared);
  EXPECT_EQ(fork.blocks_for(0), 0);
  EXPECT_EQ(fork.blocks_for(1), 1);
  EXPECT_EQ(fork.blocks_for(3), 2);
  slots_.clear();
  append(fork, 1);
  EXPECT_EQ(fork.blocks()[0], table.blocks()[0]);
  EXPECT_NE(fork.blocks()[1], shared);
  EXPECT_EQ(slots_, (std::vector<int64_t>{fork.blocks()[1] * 4 + 2}));
  EXPECT_EQ(content(cache_, fork.blocks()[1]), before);
  EXPECT_EQ(table.blocks_for(1), 0);
  slots_.clear();
  append(table, 1);
  EXPECT_EQ(table.blocks()[1], shared);
  EXPECT_EQ(slots_, (std::vector<int64_t>{shared * 4 + 2}));
  EXPECT_EQ(cache_.free_blocks(), 5);
  pool_.check(owned({&table, &fork}));
}

TEST_F(SharedBlocks, AForkOfWholeBlocksCopiesNothing) {
  BlockTable table(cache_);
  append(table, 8);
  BlockTable fork = table.fork();
  EXPECT_EQ(fork.blocks_for(1), 1);
  append(fork, 1);
  EXPECT_EQ(fork.blocks()[1], table.blocks()[1]);
  EXPECT_EQ(pool_.references(table.blocks()[1]), 2);
}

TEST_F(SharedBlocks, AppendThatCannotCopyChangesNothing) {
  BlockTable table(cache_);
  append(table, 30);
  BlockTable fork = table.fork();
  EXPECT_EQ(cache_.free_blocks(), 0);
  slots_.clear();
  EXPECT_THROW(append(fork, 1), Error);
  EXPECT_EQ(fork.length(), 30);
  EXPECT_TRUE(slots_.empty());
  pool_.check(owned({&table, &fork}));
  table.clear();
  append(fork, 2);
  EXPECT_EQ(fork.length(), 32);
}

TEST_F(SharedBlocks, APromptTakesUpWhatAnotherOneIndexed) {
  BlockTable table(cache_);
  append(table, 10);
  table.index(tokens_);
  BlockTable other(cache_);
  EXPECT_EQ(other.take_prefix(tokens_, 13), 8);
  EXPECT_EQ(other.length(), 8);
  EXPECT_EQ(other.blocks()[0], table.blocks()[0]);
  EXPECT_EQ(other.blocks()[1], table.blocks()[1]);
  // Its own third block comes behind the two that it took.
  append(other, 4);
  other.index(tokens_);
  BlockTable third(cache_);
  EXPECT_EQ(third.take_prefix(tokens_, 13), 12);
  EXPECT_EQ(third.blocks()[2], other.blocks()[2]);
  pool_.check(owned({&table, &other, &third}));
  table.clear();
  other.clear();
  third.clear();
  EXPECT_EQ(cache_.free_blocks(), 8);
  EXPECT_EQ(pool_.cached_blocks(), 3);
  EXPECT_EQ(third.take_prefix(tokens_, 7), 4);
}

TEST_F(SharedBlocks, OnlyBlocksThatAreWholeAreIndexed) {
  BlockTable table(cache_);
  append(table, 7);
  table.index(tokens_);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 4);
  append(table, 5);
  table.index(std::span(tokens_).first(11));
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 8);
  table.index(std::span(tokens_).first(2));
  table.index(tokens_);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 12);
}

TEST_F(SharedBlocks, TwinsBecomeOne) {
  BlockTable one(cache_);
  BlockTable two(cache_);
  append(one, 9);
  append(two, 9);
  one.index(tokens_);
  EXPECT_EQ(cache_.free_blocks(), 2);
  two.index(tokens_);
  EXPECT_EQ(cache_.free_blocks(), 4);
  EXPECT_EQ(one.blocks()[1], two.blocks()[1]);
  EXPECT_NE(one.blocks()[2], two.blocks()[2]);
  pool_.check(owned({&one, &two}));
}

TEST_F(SharedBlocks, WhatIsWrittenOverIsForgotten) {
  BlockTable table(cache_);
  append(table, 12);
  table.index(tokens_);
  table.truncate(7);
  // Not yet: the tokens are still there.
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 12);
  append(table, 1);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 4);
  std::vector<int32_t> others = tokens_;
  others[7] = 99;
  table.index(others);
  EXPECT_EQ(pool_.count_prefix(others, 100).tokens, 8);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 4);
  pool_.check(owned({&table}));
}

TEST_F(SharedBlocks, WhatOthersUseIsCopiedAndStaysIndexed) {
  BlockTable table(cache_);
  append(table, 8);
  table.index(tokens_);
  BlockTable other(cache_);
  other.take_prefix(tokens_, 8);
  other.truncate(6);
  EXPECT_EQ(other.blocks_for(1), 1);
  append(other, 1);
  EXPECT_NE(other.blocks()[1], table.blocks()[1]);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 8);
  pool_.check(owned({&table, &other}));
}

TEST_F(SharedBlocks, TheEndOfASequenceIsEvictedBeforeItsBeginning) {
  BlockTable table(cache_);
  append(table, 12);
  table.index(tokens_);
  const std::vector<int32_t> blocks = owned({&table});
  table.clear();
  BlockTable other(cache_);
  append(other, 5 * 4);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 12);
  append(other, 4);
  EXPECT_EQ(other.block_list().back(), blocks[2]);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 8);
  append(other, 4);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 4);
}

TEST_F(SharedBlocks, AMovedTableGoesOnIndexing) {
  BlockTable table(cache_);
  append(table, 4);
  table.index(tokens_);
  BlockTable moved(std::move(table));
  append(moved, 4);
  moved.index(tokens_);
  EXPECT_EQ(pool_.count_prefix(tokens_, 100).tokens, 8);
  pool_.check(owned({&moved}));
}

TEST(BlockTable, WithoutPrefixCachingNothingIsShared) {
  PagedKvCache cache(kShape, KvFormat::f16, 4, 4, nullptr, false);
  const std::vector<int32_t> tokens(8, 1);
  std::vector<int64_t> slots;
  BlockTable table(cache);
  table.append(8, slots);
  table.index(tokens);
  BlockTable other(cache);
  EXPECT_EQ(other.take_prefix(tokens, 8), 0);
  table.clear();
  EXPECT_EQ(cache.pool().cached_blocks(), 0);
}

}  // namespace
}  // namespace atom
