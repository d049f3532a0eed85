#include "kernels/cuda/gemm_w4a4/tile_config.h"

#include <algorithm>
#include <utility>

#include <gtest/gtest.h>

#include "kernels/cuda/layout.h"

namespace atom::cuda::tiles {
namespace {

TileConfig config_of(int64_t n, int64_t k, int64_t tokens, int sm_count = 132) {
  return tile_config(n, (k - 128) / 128 + 2, tokens, ActivationBlocks::token_stride(tokens), sm_count);
}

TEST(TileConfig, HasAKernelWhoseTilesDivideTheTokenStride) {
  for (const int64_t n : {1, 100, 576, 4096, 22016, 57344}) {
    for (const int64_t tokens : {1, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 1000, 16384}) {
      for (const int sm_count : {1, 6, 132}) {
        const TileConfig config = config_of(n, 4096, tokens, sm_count);
        EXPECT_EQ(ActivationBlocks::token_stride(tokens) % config.tokens, 0) << n << " " << tokens;
        EXPECT_EQ(std::ranges::count(tile_configs(), config), 1) << n << " " << tokens;
      }
    }
  }
}

TEST(TileConfig, TilesDivideTheTokenStrideHoweverFewTheUnits) {
  for (const int64_t units : {1, 2, 3, 4, 8}) {
    for (const int64_t stride : {16, 32, 64, 128, 256}) {
      EXPECT_EQ(stride % tile_config(4096, units, stride, stride, 132).tokens, 0) << units << " " << stride;
    }
  }
}

TEST(TileConfig, EveryPartOfASplitHasUnits) {
  for (const int64_t units : {1, 7})
    EXPECT_EQ(tile_config(4096, units, 256, 256, 132).splits * tile_config(4096, units, 256, 256, 132).turns,
              1);
}

TEST(TileConfig, LargeTilesWhereTheyFillTheDevice) {
  EXPECT_EQ(config_of(22016, 4096, 4096), (TileConfig{128, 256, 1, 1}));
  EXPECT_EQ(config_of(4096, 11008, 1024), (TileConfig{128, 256, 1, 1}));
  // Tokens without sums.
  for (const int64_t n : {64, 1000, 6144}) EXPECT_EQ(config_of(n, 4096, 1025).tokens, 256);
}

TEST(TileConfig, SmallerOnesOrPartsOfKWhereTheyWouldLeaveMultiprocessorsIdle) {
  EXPECT_EQ(config_of(12288, 4096, 256), (TileConfig{192, 128, 1, 1}));
  EXPECT_EQ(config_of(4096, 11008, 256), (TileConfig{128, 128, 2, 1}));
  EXPECT_EQ(config_of(22016, 4096, 64), (TileConfig{192, 64, 1, 1}));
  EXPECT_EQ(config_of(4096, 11008, 32), (TileConfig{64, 32, 2, 2}));
  EXPECT_EQ(config_of(12288, 4096, 32), (TileConfig{128, 32, 1, 2}));
  // Clusters share what does not fill the last wave.
  EXPECT_EQ(config_of(57344, 8192, 64), (TileConfig{128, 64, 2, 1}));
}

TEST(TileGrid, ClustersShareTheLastTiles) {
  const auto grid = [](const TileConfig& config, int64_t tiles) {
    const TileGrid g = tile_grid(config, tiles, 132);
    return std::pair(g.ctas, g.whole_tiles);
  };
  EXPECT_EQ(grid({128, 64, 1, 1}, 448), std::pair(int64_t{132}, int64_t{448}));
  EXPECT_EQ(grid({128, 64, 1, 1}, 40), std::pair(int64_t{40}, int64_t{40}));
  EXPECT_EQ(grid({128, 64, 2, 1}, 448), std::pair(int64_t{132}, int64_t{396}));
  EXPECT_EQ(grid({128, 64, 2, 1}, 40), std::pair(int64_t{80}, int64_t{0}));
  // More than one for each cluster.
  EXPECT_EQ(grid({128, 64, 2, 1}, 200), std::pair(int64_t{400}, int64_t{0}));
  EXPECT_EQ(grid({64, 64, 2, 2}, 40), std::pair(int64_t{80}, int64_t{0}));
  EXPECT_EQ(grid({128, 64, 1, 2}, 200), std::pair(int64_t{200}, int64_t{0}));
}

TEST(TileConfig, TokenTilesThatAreWorkedOnTogether) {
  EXPECT_EQ(tile_super(128, 1), 1);
  EXPECT_EQ(tile_super(128, 32), 8);
  EXPECT_EQ(tile_super(256, 32), 4);
}

}  // namespace
}  // namespace atom::cuda::tiles
