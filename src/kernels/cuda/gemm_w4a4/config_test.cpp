#include "kernels/cuda/gemm_w4a4/config.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "kernels/cuda/layout.h"

namespace atom::cuda {
namespace {

TEST(GemmConfig, EveryShapeGetsALegalConfiguration) {
  for (const int64_t n : {1, 16, 100, 128, 576, 4096, 12288, 22016, 57344, 128256}) {
    for (const int64_t groups : {0, 1, 4, 31, 85, 223}) {
      for (const int64_t outliers : {0, 64, 100, 128, 576, 8192}) {
        if (groups + outliers == 0) continue;
        for (const int64_t tokens : {1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 16384}) {
          for (const bool exact : {false, true}) {
            const GemmConfig config = gemm_config(n, groups, outliers, tokens, exact, 132);
            SCOPED_TRACE(::testing::Message() << n << " " << groups << " " << outliers << " " << tokens);
            if (config.kind == GemmConfig::Kind::large) {
              EXPECT_LE(outliers, kMaxLargeOutliers);
              EXPECT_GE(tokens, kMinLargeTokens);
              continue;
            }
            EXPECT_GE(config.token_tiles * config.tokens, tokens);
            EXPECT_LT((config.token_tiles - 1) * config.tokens, tokens);
            EXPECT_GT(config.ctas, 0);
            EXPECT_LE(config.token_tiles, 65535);
            if (config.kind == GemmConfig::Kind::stream) {
              EXPECT_LE(tokens, kMaxStreamTokens);
              EXPECT_LE(config.ctas, 132);
              EXPECT_LE(config.ctas, (n + 15) / 16);
              EXPECT_EQ(scratch_bytes(config), 0);
              continue;
            }
            // The tile's tokens are in the block of activations.
            EXPECT_EQ(ActivationBlocks::token_stride(tokens) % config.tokens, 0);
            const int64_t tiles = (n + kTileRows - 1) / kTileRows;
            const int64_t units = WeightTiles{n, groups, outliers}.units();
            if (config.kind == GemmConfig::Kind::small) {
              EXPECT_FALSE(exact);
              EXPECT_EQ(config.ctas, tiles * config.splits);
              EXPECT_LE(config.splits, std::max<int64_t>(1, std::min<int64_t>(kMaxSplits, units)));
            } else if (!config.even) {
              EXPECT_EQ(config.ctas, tiles);
            } else {
              EXPECT_FALSE(exact);
              EXPECT_EQ(config.token_tiles, 1);
              // All run at one time, and none is without work.
              EXPECT_LE(config.ctas, 132 * resident_ctas(config.tokens));
              EXPECT_LE(config.ctas, tiles * units);
            }
            EXPECT_EQ(scratch_bytes(config),
                      config.even ? 2 * config.ctas * config.tokens * kTileRows * 4 : 0);
          }
        }
      }
    }
  }
}

/// The forms that were fastest on an H200, for the shapes of Llama-7B and 70B.
TEST(GemmConfig, WhatWasFastest) {
  using Kind = GemmConfig::Kind;
  const auto fast = [](int64_t n, int64_t groups, int64_t tokens) {
    return gemm_config(n, groups, 128, tokens, false, 132);
  };
  // q/k/v, o and down: K split over clusters.
  EXPECT_EQ(fast(12288, 31, 32).splits, 2);
  EXPECT_EQ(fast(4096, 31, 32).splits, 5);
  EXPECT_EQ(fast(4096, 85, 32).splits, 7);
  EXPECT_EQ(fast(4096, 31, 64).kind, Kind::small);
  EXPECT_EQ(fast(4096, 31, 128).kind, Kind::small);
  // gate/up: whole tiles; from 64 tokens on evenly divided.
  EXPECT_EQ(fast(22016, 31, 32).kind, Kind::divided);
  EXPECT_FALSE(fast(22016, 31, 32).even);
  EXPECT_EQ(fast(22016, 31, 64).ctas, 264);
  EXPECT_EQ(fast(22016, 31, 128).ctas, 132);
  for (const int64_t tokens : {32, 64}) {
    EXPECT_TRUE(fast(10240, 63, tokens).even);
    EXPECT_FALSE(fast(8192, 63, tokens).even);
    EXPECT_TRUE(fast(57344, 63, tokens).even);
    EXPECT_TRUE(fast(8192, 223, tokens).even);
  }
  // Whole tiles where K must stay in one accumulator.
  EXPECT_EQ(gemm_config(4096, 31, 128, 64, true, 132).ctas, 32);
  EXPECT_FALSE(gemm_config(4096, 31, 128, 64, true, 132).even);
}

}  // namespace
}  // namespace atom::cuda
