#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/config.h"
#include "kernels/cuda/gemm_w4a4/divided_kernel.cuh"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/small_kernel.cuh"
#include "kernels/cuda/gemm_w4a4/stream_kernel.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

template <typename Y, int kTokens, int kStages, int kResident>
void launch_small(const GemmContext& context, const GemmConfig& config, const SmallArguments& arguments) {
  using Shape = SmallShape<kTokens, kStages>;
  static_assert(Shape::kShared <= 227 * 1024);
  launch(gemm_w4a4_small_kernel<Y, kTokens, kStages, kResident>,
         dim3(static_cast<unsigned>(config.ctas), static_cast<unsigned>(config.token_tiles)),
         dim3(Shape::kThreads), Shape::kShared, context.stream, LaunchOptions{config.splits, true}, arguments,
         config.splits);
}

template <typename Y, int kTokens, int kStages, int kResident>
void launch_divided(const GemmContext& context, const GemmConfig& config, const DividedArguments& arguments) {
  using Shape = DividedShape<kTokens, kStages>;
  // Static shared memory and what the system takes of each CTA come on top.
  static_assert(Shape::kShared + 2048 <= 228 * 1024 / kResident);
  const auto kernel = gemm_w4a4_divided_kernel<Y, kTokens, kStages, kResident>;
  // CTAs that share a tile wait for each other, so all must be resident.
  ATOM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100));
  launch(kernel, dim3(static_cast<unsigned>(config.ctas), static_cast<unsigned>(config.token_tiles)),
         dim3(Shape::kThreads), Shape::kShared, context.stream, LaunchOptions{}, arguments);
}

template <typename Y, int kTokens, int kWarps, int kRows, int kSlots>
void launch_stream(const GemmContext& context, const GemmConfig& config, const StreamArguments& arguments) {
  using Shape = StreamShape<kTokens, kWarps, kRows, kSlots>;
  static_assert(Shape::shared(kTokens) <= 227 * 1024);
  launch(gemm_w4a4_stream_kernel<Y, kTokens, kWarps, kRows, kSlots>,
         dim3(static_cast<unsigned>(config.ctas), static_cast<unsigned>(config.token_tiles)),
         dim3(kWarps * 32), Shape::shared(arguments.tokens), context.stream, LaunchOptions{}, arguments);
}

void divided(const GemmContext& context, const GemmW4A4& gemm, const GemmConfig& config,
             const WeightTiles& tiles, int token_stride) {
  if (config.even && (context.scratch_bytes < scratch_bytes(config) || context.counter_count < config.ctas ||
                      config.ctas > int64_t{context.sm_count} * resident_ctas(config.tokens))) {
    fail("W4A4 GEMM: {} bytes of scratch memory and {} counters for {} CTAs that divide K",
         context.scratch_bytes, context.counter_count, config.ctas);
  }
  const DividedArguments arguments{gemm.weight,
                                   gemm.x,
                                   gemm.sx,
                                   gemm.y,
                                   static_cast<float4*>(context.scratch),
                                   context.counters,
                                   gemm.y_stride,
                                   static_cast<int>(gemm.n),
                                   static_cast<int>(gemm.tokens),
                                   token_stride,
                                   static_cast<int>(gemm.groups),
                                   static_cast<int>(tiles.units()),
                                   static_cast<int>(tiles.tiles()),
                                   config.even,
                                   gemm.accumulate};
  with_output_type(gemm.y_dtype, [&]<typename Y>() {
    switch (config.tokens) {
      case 8:
        return launch_divided<Y, 8, 10, 2>(context, config, arguments);
      case 16:
        return launch_divided<Y, 16, 9, 2>(context, config, arguments);
      case 32:
        return launch_divided<Y, 32, 8, 2>(context, config, arguments);
      case 64:
        return launch_divided<Y, 64, 6, 2>(context, config, arguments);
      default:
        return launch_divided<Y, 128, 4, 1>(context, config, arguments);
    }
  });
}

}  // namespace

void gemm_w4a4_small(const GemmContext& context, const GemmW4A4& gemm, const GemmConfig& config) {
  const WeightTiles tiles{gemm.n, gemm.groups, gemm.n_outlier};
  const int token_stride = static_cast<int>(ActivationBlocks::token_stride(gemm.tokens));
  if (config.kind == GemmConfig::Kind::stream) {
    const StreamArguments arguments{gemm.weight,
                                    gemm.x,
                                    gemm.sx,
                                    gemm.y,
                                    gemm.y_stride,
                                    static_cast<int>(gemm.n),
                                    static_cast<int>(gemm.tokens),
                                    token_stride,
                                    static_cast<int>(gemm.groups),
                                    static_cast<int>(tiles.units()),
                                    static_cast<int>((gemm.n + kRowBlock - 1) / kRowBlock),
                                    gemm.accumulate};
    with_output_type(gemm.y_dtype, [&]<typename Y>() {
      if (config.tokens == 8) return launch_stream<Y, 8, 12, 3, 2>(context, config, arguments);
      launch_stream<Y, 16, 8, 4, 2>(context, config, arguments);
    });
    return;
  }
  if (config.tokens > token_stride)
    fail("W4A4 GEMM: tiles of {} tokens, activations of {}", config.tokens, token_stride);
  if (config.kind == GemmConfig::Kind::divided) return divided(context, gemm, config, tiles, token_stride);
  const SmallArguments arguments{gemm.weight,
                                 gemm.x,
                                 gemm.sx,
                                 gemm.y,
                                 gemm.y_stride,
                                 static_cast<int>(gemm.n),
                                 static_cast<int>(gemm.tokens),
                                 token_stride,
                                 static_cast<int>(gemm.groups),
                                 static_cast<int>(tiles.units()),
                                 gemm.accumulate};
  with_output_type(gemm.y_dtype, [&]<typename Y>() {
    switch (config.tokens) {
      case 32:
        return launch_small<Y, 32, 7, 2>(context, config, arguments);
      case 64:
        return launch_small<Y, 64, 6, 2>(context, config, arguments);
      default:
        return launch_small<Y, 128, 8, 1>(context, config, arguments);
    }
  });
}

}  // namespace atom::cuda
