#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/large.h"
#include "kernels/cuda/gemm_w4a4/large_kernel.cuh"

namespace atom::cuda {
namespace large {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    fail(what, cudaGetErrorString(status));
}

template <class T>
void launch_as(const GemmContext& context, Arguments arguments) {
  arguments.row_tiles = (arguments.n + T::kRows - 1) / T::kRows;
  arguments.token_tiles = (arguments.tokens + T::kTokens - 1) / T::kTokens;
  const LargeConfig config{T::kRows, T::kTokens, T::kCluster};
  arguments.super = large_super(config, arguments.token_tiles);
  static_assert(T::kStages >= kMaxOutlierUnits && T::kSharedBytes <= 232448);
  const auto kernel = gemm_w4a4_large_kernel<T>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes),
        "shared memory");
  const int64_t clusters = static_cast<int64_t>((arguments.row_tiles + T::kCluster - 1) / T::kCluster) *
                           arguments.token_tiles;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = static_cast<unsigned>(std::min<int64_t>(clusters, context.sm_count / T::kCluster) * T::kCluster);
  launch.blockDim = T::kThreads;
  launch.dynamicSmemBytes = T::kSharedBytes;
  launch.stream = context.stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {T::kCluster, 1, 1};
  launch.attrs = attributes;
  launch.numAttrs = T::kCluster > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&launch, kernel, arguments), "launch");
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
  if (is(256, 128, 1)) return launch_as<Tile<2, 2, 128, 1>>(context, arguments);
  if (is(256, 128, 2)) return launch_as<Tile<2, 2, 128, 2>>(context, arguments);
  if (is(192, 128, 1)) return launch_as<Tile<3, 1, 128, 1>>(context, arguments);
  if (is(192, 128, 2)) return launch_as<Tile<3, 1, 128, 2>>(context, arguments);
  if (is(128, 128, 1)) return launch_as<Tile<2, 1, 128, 1>>(context, arguments);
  if (is(128, 128, 2)) return launch_as<Tile<2, 1, 128, 2>>(context, arguments);
  if (is(192, 64, 1)) return launch_as<Tile<3, 1, 64, 1>>(context, arguments);
  if (is(192, 64, 2)) return launch_as<Tile<3, 1, 64, 2>>(context, arguments);
  if (is(128, 64, 1)) return launch_as<Tile<2, 1, 64, 1>>(context, arguments);
  if (is(128, 64, 2)) return launch_as<Tile<2, 1, 64, 2>>(context, arguments);
  fail("tile", "no kernel of this shape");
}

}  // namespace large

bool gemm_w4a4_large_supports(const GemmW4A4& gemm) {
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  return gemm.tokens > 32 && weight.outlier_units() <= large::kMaxOutlierUnits && gemm.n <= 1 << 24 &&
         gemm.tokens <= 1 << 24;
}

void gemm_w4a4_large(const GemmContext& context, const GemmW4A4& gemm) {
  if (!gemm_w4a4_large_supports(gemm)) large::fail("shape", "not supported");
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  large::launch(context, gemm,
                large::large_config(gemm.n, weight.units(), gemm.tokens,
                                    ActivationBlocks::token_stride(gemm.tokens), context.sm_count));
}

}  // namespace atom::cuda
