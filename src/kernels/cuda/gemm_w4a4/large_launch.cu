#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/large.h"
#include "kernels/cuda/gemm_w4a4/large_kernel.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace large {
namespace {

template <class T>
void launch_as(const GemmContext& context, Arguments arguments) {
  arguments.row_tiles = (arguments.n + T::kRows - 1) / T::kRows;
  arguments.token_tiles = (arguments.tokens + T::kTokens - 1) / T::kTokens;
  const LargeConfig config{T::kRows, T::kTokens, T::kCluster};
  arguments.super = large_super(config, arguments.token_tiles);
  static_assert(T::kStages >= kMaxOutlierUnits && T::kSharedBytes <= 232448);
  const int64_t clusters =
      static_cast<int64_t>((arguments.row_tiles + T::kCluster - 1) / T::kCluster) * arguments.token_tiles;
  const int64_t grid = std::min<int64_t>(clusters, context.sm_count / T::kCluster) * T::kCluster;
  cuda::launch(gemm_w4a4_large_kernel<T>, dim3(static_cast<unsigned>(grid)), dim3(T::kThreads),
               T::kSharedBytes, context.stream, LaunchOptions{T::kCluster, true}, arguments);
}

}  // namespace

void launch(const GemmContext& context, const GemmW4A4& gemm, const LargeConfig& config) {
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  Arguments arguments = {};
  arguments.weight = gemm.weight;
  arguments.x = gemm.x;
  arguments.sx = gemm.sx;
  arguments.y = gemm.y;
  arguments.y_stride = gemm.y_stride;
  arguments.stride = ActivationBlocks::token_stride(gemm.tokens);
  arguments.n = static_cast<int>(gemm.n);
  arguments.tokens = static_cast<int>(gemm.tokens);
  arguments.groups = static_cast<int>(gemm.groups);
  arguments.outlier_units = static_cast<int>(weight.outlier_units());
  arguments.y_dtype = gemm.y_dtype;
  arguments.accumulate = gemm.accumulate;
  arguments.vector_stores = reinterpret_cast<uintptr_t>(gemm.y) % 16 == 0 &&
                            gemm.y_stride * static_cast<int64_t>(size_of(gemm.y_dtype)) % 16 == 0;
  const auto is = [&](int rows, int tokens, int cluster) {
    return config == LargeConfig{rows, tokens, cluster};
  };
  if (is(192, 128, 1)) return launch_as<Tile<3, 1, 1, 128, 1>>(context, arguments);
  if (is(192, 128, 2)) return launch_as<Tile<3, 1, 1, 128, 2>>(context, arguments);
  if (is(128, 128, 1)) return launch_as<Tile<2, 1, 1, 128, 1>>(context, arguments);
  if (is(192, 64, 1)) return launch_as<Tile<3, 1, 1, 64, 1>>(context, arguments);
  if (is(128, 64, 1)) return launch_as<Tile<2, 1, 1, 64, 1>>(context, arguments);
  fail("W4A4 GEMM: no kernel for tiles of {} x {}", config.rows, config.tokens);
}

}  // namespace large

bool gemm_w4a4_large_supports(const GemmW4A4& gemm) {
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  return gemm.tokens > 32 && weight.outlier_units() <= large::kMaxOutlierUnits && gemm.n <= 1 << 24 &&
         gemm.tokens <= 1 << 24;
}

void gemm_w4a4_large(const GemmContext& context, const GemmW4A4& gemm) {
  if (!gemm_w4a4_large_supports(gemm)) {
    fail("W4A4 GEMM: {} tokens and {} outliers are not for the large kernel", gemm.tokens, gemm.n_outlier);
  }
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  large::launch(context, gemm,
                large::large_config(gemm.n, weight.units(), gemm.tokens,
                                    ActivationBlocks::token_stride(gemm.tokens), context.sm_count));
}

}  // namespace atom::cuda
