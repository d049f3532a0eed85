#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/config.h"
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

template <typename Y, int kTokens, int kWarps, int kRows, int kSlots, bool kExact>
void launch_stream(const GemmContext& context, const GemmConfig& config, const StreamArguments& arguments) {
  using Shape = StreamShape<kTokens, kWarps, kRows, kSlots, kExact>;
  static_assert(Shape::shared(kTokens) <= 227 * 1024);
  launch(gemm_w4a4_stream_kernel<Y, kTokens, kWarps, kRows, kSlots, kExact>,
         dim3(static_cast<unsigned>(config.ctas), static_cast<unsigned>(config.token_tiles)),
         dim3(kWarps * 32), Shape::shared(arguments.tokens), context.stream, LaunchOptions{}, arguments);
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
      if (context.exact) {
        if (config.tokens == 8) return launch_stream<Y, 8, 8, 1, 5, true>(context, config, arguments);
        return launch_stream<Y, 16, 8, 1, 4, true>(context, config, arguments);
      }
      if (config.tokens == 8) return launch_stream<Y, 8, 12, 3, 2, false>(context, config, arguments);
      launch_stream<Y, 16, 8, 4, 2, false>(context, config, arguments);
    });
    return;
  }
  if (config.tokens > token_stride)
    fail("W4A4 GEMM: tiles of {} tokens, activations of {}", config.tokens, token_stride);
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
