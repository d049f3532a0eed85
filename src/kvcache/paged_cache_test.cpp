#include "kvcache/paged_cache.h"

#include <set>

#include <gtest/gtest.h>

#include "base/error.h"

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
  EXPECT_EQ(error_of(int64_t{1} << 46, 16),
            "no memory for a KV cache of 1125899906842624 tokens (432345564227567616 bytes in f32)");
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

}  // namespace
}  // namespace atom
