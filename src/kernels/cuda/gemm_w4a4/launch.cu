#include <cstdint>

#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/launch.h"
#include "kernels/cuda/gemm_w4a4/tile_kernel.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::tiles {
namespace {

template <class T>
void launch_as(const GemmContext& context, Arguments arguments) {
  arguments.row_tiles = (arguments.n + T::kRows - 1) / T::kRows;
  arguments.token_tiles = (arguments.tokens + T::kTokens - 1) / T::kTokens;
  // Tiles are read whole.
  if (arguments.stride % T::kTokens != 0) {
    fail("W4A4 GEMM: tiles of {} tokens, {} in a block of activations", T::kTokens, arguments.stride);
  }
  if (T::kUnsigned && arguments.tokens > ActivationBlocks::kMostSummed) {
    fail("W4A4 GEMM: tiles of {} tokens, {} of which have no sums", T::kTokens, arguments.tokens);
  }
  arguments.super = tile_super(T::kTokens, arguments.token_tiles);
  const int64_t tiles = static_cast<int64_t>(arguments.row_tiles) * arguments.token_tiles;
  const TileGrid grid = tile_grid({T::kRows, T::kTokens, T::kSplits, T::kTurns}, tiles, context.sm_count);
  arguments.whole_tiles = static_cast<int>(grid.whole_tiles);
  cuda::launch(gemm_w4a4_kernel<T>, dim3(static_cast<unsigned>(grid.ctas)), dim3(T::kThreads),
               T::kSharedBytes, context.stream, LaunchOptions{T::kSplits, true}, arguments);
}

template <int kTokens>
void launch_tokens(const GemmContext& context, const Arguments& arguments, const TileConfig& config) {
  const auto is = [&](int rows, int splits, int turns) {
    return config.rows == rows && config.splits == splits && config.turns == turns;
  };
  if (is(128, 1, 1)) return launch_as<Tile<2, kTokens, 1, 1>>(context, arguments);
  if (is(128, 2, 1)) return launch_as<Tile<2, kTokens, 2, 1>>(context, arguments);
  if constexpr (kTokens < 256) {
    if (is(192, 1, 1)) return launch_as<Tile<3, kTokens, 1, 1>>(context, arguments);
    if (is(192, 2, 1)) return launch_as<Tile<3, kTokens, 2, 1>>(context, arguments);
    if (is(64, 2, 2)) return launch_as<Tile<1, kTokens, 2, 2>>(context, arguments);
    if constexpr (kTokens < 128) {
      if (is(128, 1, 2)) return launch_as<Tile<2, kTokens, 1, 2>>(context, arguments);
    }
  }
  fail("W4A4 GEMM: no kernel for tiles of {} x {}, {} x {} parts", config.rows, config.tokens, config.splits,
       config.turns);
}

}  // namespace

void launch(const GemmContext& context, const GemmW4A4& gemm, const TileConfig& config) {
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  Arguments arguments = {};
  arguments.weight = gemm.weight;
  arguments.row_units = reinterpret_cast<const float*>(gemm.weight + weight.row_units_offset());
  arguments.x = gemm.x;
  arguments.token_units = gemm.x_scales;
  arguments.y = gemm.y;
  arguments.y_stride = gemm.y_stride;
  arguments.stride = ActivationBlocks::token_stride(gemm.tokens);
  arguments.n = static_cast<int>(gemm.n);
  arguments.tokens = static_cast<int>(gemm.tokens);
  arguments.groups = static_cast<int>(gemm.groups);
  arguments.outlier_units = static_cast<int>(weight.outlier_units());
  arguments.rows = static_cast<int>(weight.rows());
  arguments.y_dtype = gemm.y_dtype;
  arguments.accumulate = gemm.accumulate;
  arguments.vector_stores = gemm.n % 16 == 0 && reinterpret_cast<uintptr_t>(gemm.y) % 16 == 0 &&
                            gemm.y_stride * static_cast<int64_t>(size_of(gemm.y_dtype)) % 16 == 0;
  if (config.tokens == 16) return launch_tokens<16>(context, arguments, config);
  if (config.tokens == 32) return launch_tokens<32>(context, arguments, config);
  if (config.tokens == 64) return launch_tokens<64>(context, arguments, config);
  if (config.tokens == 128) return launch_tokens<128>(context, arguments, config);
  if (config.tokens == 256) return launch_tokens<256>(context, arguments, config);
  fail("W4A4 GEMM: no kernel for tiles of {} tokens", config.tokens);
}

}  // namespace atom::cuda::tiles
