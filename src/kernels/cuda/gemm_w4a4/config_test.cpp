#include "kernels/cuda/gemm_w4a4/config.h"

#include <gtest/gtest.h>

#include "kernels/cuda/layout.h"

namespace atom::cuda {
namespace {

TEST(GemmConfig, EveryShapeGetsALegalConfiguration) {
  for (const int64_t n : {1, 16, 100, 128, 576, 4096, 12288, 22016, 57344, 128256}) {
    for (const int64_t groups : {0, 1, 4, 31, 85, 223}) {
      for (const int64_t outliers : {0, 64, 100, 128, 576, 8192}) {
        for (const int64_t tokens : {1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 16384}) {
          for (const bool exact : {false, true}) {
            const GemmConfig config = gemm_config(n, groups, outliers, tokens, exact, 132);
            SCOPED_TRACE(::testing::Message() << n << " " << groups << " " << outliers << " " << tokens);
            if (config.kind == GemmConfig::Kind::large) {
              EXPECT_LE(outliers, kMaxLargeOutliers);
              EXPECT_GT(tokens, 32);
              continue;
            }
            EXPECT_GE(config.token_tiles * config.tokens, tokens);
            EXPECT_LT((config.token_tiles - 1) * config.tokens, tokens);
            EXPECT_GE(config.splits, 1);
            EXPECT_LE(config.splits, kMaxSplits);
            EXPECT_TRUE(!exact || config.splits == 1);
            EXPECT_GT(config.ctas, 0);
            EXPECT_LE(config.token_tiles, 65535);
            if (config.kind == GemmConfig::Kind::stream) {
              EXPECT_LE(tokens, kMaxStreamTokens);
              EXPECT_LE(config.ctas, 132);
              EXPECT_LE(config.ctas, (n + 15) / 16);
              EXPECT_EQ(config.splits, 1);
            } else {
              EXPECT_EQ(config.ctas, (n + kTileRows - 1) / kTileRows * config.splits);
              // The tile's tokens are in the block of activations.
              EXPECT_EQ(ActivationBlocks::token_stride(tokens) % config.tokens, 0);
              EXPECT_LE(config.splits, std::max<int64_t>(1, WeightTiles{n, groups, outliers}.units()));
            }
          }
        }
      }
    }
  }
}

TEST(GemmConfig, FewTilesAreSplit) {
  // o_proj of Llama-7B: 32 tiles for 132 multiprocessors.
  EXPECT_GE(small_config(4096, 33, 64, false, 132).splits, 4);
  EXPECT_EQ(small_config(4096, 33, 64, true, 132).splits, 1);
  // Two tiles for each multiprocessor fill it.
  EXPECT_EQ(small_config(264 * 128, 33, 64, false, 132).splits, 1);
  // The splits that were fastest on an H200 for Llama-7B and 32 tokens: q/k/v, o, gate/up, down (within 5%).
  EXPECT_EQ(small_config(12288, 33, 32, false, 132).splits, 2);
  EXPECT_EQ(small_config(4096, 33, 32, false, 132).splits, 5);
  EXPECT_EQ(small_config(22016, 33, 32, false, 132).splits, 1);
  EXPECT_EQ(small_config(4096, 87, 32, false, 132).splits, 7);
}

}  // namespace
}  // namespace atom::cuda
