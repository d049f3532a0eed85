#include "kernels/cuda/attention/config.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace atom::cuda {
namespace {

constexpr int kSms = 132;

TEST(AttentionConfig, ExactSplitsWhereBlocksAreFew) {
  // One row of SmolLM2 at 2,048 tokens: 3 blocks, so the 4 segments are blocks of their own.
  const ExactPlan decode = plan_exact({1, 1, 2048, 9, 3, 64}, kSms);
  EXPECT_EQ(decode.rows, 8);
  EXPECT_EQ(decode.padded_dim, 64);
  EXPECT_EQ(decode.segments, 4);
  EXPECT_TRUE(decode.split);
  EXPECT_EQ(decode.scratch_bytes, size_t{1} * 9 * 4 * (20 + 64) * 4);
  // Its whole prefill: 48 row tiles of 32.
  const ExactPlan prefill = plan_exact({1, 512, 2048, 9, 3, 64}, kSms);
  EXPECT_EQ(prefill.rows, 32);
  EXPECT_EQ(prefill.row_tiles, 48);
  // Many blocks need no split.
  const ExactPlan batch = plan_exact({64, 1, 2048, 32, 32, 128}, kSms);
  EXPECT_FALSE(batch.split);
  EXPECT_EQ(batch.scratch_bytes, 0u);
}

TEST(AttentionConfig, ExactPadsChannelsAndTakesFewRowsOfWideHeads) {
  EXPECT_EQ(plan_exact({1, 512, 512, 8, 8, 96}, kSms).padded_dim, 128);
  EXPECT_EQ(plan_exact({1, 512, 512, 8, 8, 200}, kSms).padded_dim, 256);
  EXPECT_EQ(plan_exact({1, 512, 512, 8, 8, 200}, kSms).rows, 8);
  // One segment is never split.
  EXPECT_FALSE(plan_exact({1, 1, 512, 8, 8, 64}, kSms).split);
}

TEST(AttentionConfig, DecodeFillsTheChip) {
  // Batch 64 of 32/8 heads is 512 items for 528 slots of 4 warps: a part each.
  const DecodePlan batch = plan_decode({64, 1, 1024, 32, 8, 128}, KvFormat::int4, kSms);
  EXPECT_EQ(batch.splits, 1);
  EXPECT_EQ(batch.warps, 4);
  EXPECT_EQ(batch.items(), 512);
  // 16 such sequences are 128: an SM each.
  const DecodePlan some = plan_decode({16, 1, 1024, 32, 8, 128}, KvFormat::int4, kSms);
  EXPECT_EQ(some.splits, 1);
  EXPECT_EQ(some.warps, 16);
  // One sequence of 8 KV heads is split over the SMs, in few parts.
  const DecodePlan one = plan_decode({1, 1, 32768, 32, 8, 128}, KvFormat::int4, kSms);
  EXPECT_EQ(one.warps, 16);
  EXPECT_GT(one.items(), 0.9 * kSms);
  EXPECT_LE(one.items(), kSms);
  // Merging a few keys does not pay.
  EXPECT_LE(plan_decode({1, 1, 1024, 32, 8, 128}, KvFormat::int4, kSms).splits, 4);
  EXPECT_EQ(plan_decode({1, 1, 200, 32, 8, 128}, KvFormat::int4, kSms).splits, 1);
}

TEST(AttentionConfig, LongBlocksOfManyRoundsAreStaggered) {
  EXPECT_GT(plan_decode({64, 1, 2048, 32, 32, 128}, KvFormat::int4, kSms).stagger, 0);
  // Few stages, one round, blocks of all warps, another format.
  EXPECT_EQ(plan_decode({64, 1, 512, 32, 32, 128}, KvFormat::int4, kSms).stagger, 0);
  EXPECT_EQ(plan_decode({64, 1, 2048, 32, 8, 128}, KvFormat::int4, kSms).stagger, 0);
  EXPECT_EQ(plan_decode({1, 1, 32768, 32, 32, 128}, KvFormat::int4, kSms).stagger, 0);
  EXPECT_EQ(plan_decode({64, 1, 2048, 32, 32, 128}, KvFormat::f16, kSms).stagger, 0);
}

TEST(AttentionConfig, PartsAreBounded) {
  bool reaches_many = false;
  for (const KvFormat format : {KvFormat::int4, KvFormat::int8, KvFormat::f16}) {
    for (const int64_t sequences : {1, 3, 40, 52, 500, 20000}) {
      for (const int64_t context : {1, 100, 5000, 8192, 1 << 20}) {
        for (const int64_t kv_heads : {1, 8, 32}) {
          for (const int64_t rows : {1, 4, 100}) {
            const DecodePlan plan = plan_decode({sequences, rows, context, 32, kv_heads, 128}, format, kSms);
            EXPECT_LE(plan.splits, std::max<int64_t>(1, (context + 127) / 128));
            if (plan.splits == 1) continue;
            EXPECT_LE(plan.items(), kAttentionParts);
            reaches_many = reaches_many || plan.items() > kAttentionParts / 2;
          }
        }
      }
    }
  }
  EXPECT_TRUE(reaches_many);
}

TEST(AttentionConfig, RowsOfAGroupShareColumns) {
  EXPECT_EQ(max_decode_rows({1, 1, 1, 32, 8, 128}), 4);
  EXPECT_EQ(max_decode_rows({1, 1, 1, 32, 32, 128}), 16);
  EXPECT_EQ(max_decode_rows({1, 1, 1, 64, 2, 128}), 1);
  EXPECT_EQ(plan_decode({1, 100, 4096, 32, 8, 128}, KvFormat::f16, kSms).column_tiles, 2);
  EXPECT_EQ(plan_decode({1, 1, 4096, 12, 1, 128}, KvFormat::f16, kSms).column_tiles, 2);
}

}  // namespace
}  // namespace atom::cuda
