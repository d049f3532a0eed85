#include "kernels/cuda/gemm_w4a4/large_config.h"

#include <gtest/gtest.h>

#include "kernels/cuda/layout.h"

namespace atom::cuda::large {
namespace {

LargeConfig config_of(int64_t n, int64_t k, int64_t tokens) {
  return large_config(n, (k - 128) / 128 + 2, tokens, ActivationBlocks::token_stride(tokens), 132);
}

TEST(LargeConfig, TilesDivideTheTokenStride) {
  for (const int64_t n : {1, 100, 576, 4096, 22016, 57344}) {
    for (const int64_t tokens : {33, 64, 65, 128, 129, 256, 1000, 16384}) {
      const LargeConfig config = config_of(n, 4096, tokens);
      EXPECT_EQ(ActivationBlocks::token_stride(tokens) % config.tokens, 0) << n << " " << tokens;
    }
  }
}

TEST(LargeConfig, SmallTilesWhereLargeOnesWouldLeaveMultiprocessorsIdle) {
  EXPECT_EQ(config_of(4096, 11008, 256), (LargeConfig{128, 64, 1}));
  EXPECT_EQ(config_of(22016, 4096, 4096), (LargeConfig{192, 128, 1}));
  EXPECT_EQ(config_of(12288, 4096, 256), (LargeConfig{192, 128, 1}));
}

TEST(LargeConfig, TokenTilesThatAreWorkedOnTogether) {
  EXPECT_EQ(large_super({192, 128, 1}, 1), 1);
  EXPECT_EQ(large_super({192, 128, 1}, 32), 8);
  EXPECT_EQ(large_super({128, 64, 1}, 32), 16);
}

}  // namespace
}  // namespace atom::cuda::large
