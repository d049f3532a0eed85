#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/stream_config.h"
#include "kernels/cuda/gemm_w4a4/stream_kernel.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

StreamArguments arguments_of(const GemmW4A4& gemm) {
  const WeightTiles tiles{gemm.n, gemm.groups, gemm.n_outlier};
  const auto floats = [&](int64_t offset) { return reinterpret_cast<const float*>(gemm.weight + offset); };
  StreamArguments arguments = {};
  arguments.weight = gemm.weight;
  arguments.row_units = floats(tiles.row_units_offset());
  arguments.row_outliers = floats(tiles.outlier_multipliers_offset());
  arguments.x = gemm.x;
  arguments.x_scales = gemm.x_scales;
  arguments.y = gemm.y;
  arguments.y_stride = gemm.y_stride;
  arguments.n = static_cast<int>(gemm.n);
  arguments.tokens = static_cast<int>(gemm.tokens);
  arguments.token_stride = static_cast<int>(ActivationBlocks::token_stride(gemm.tokens));
  arguments.groups = static_cast<int>(gemm.groups);
  arguments.units = static_cast<int>(tiles.units());
  arguments.row_blocks = static_cast<int>((gemm.n + kRowBlock - 1) / kRowBlock);
  arguments.accumulate = gemm.accumulate;
  return arguments;
}

template <typename Y, int kWarps, int kRows, int kSlots>
void launch_stream(const GemmContext& context, const StreamConfig& config, const StreamArguments& arguments) {
  using Shape = StreamShape<kWarps, kRows, kSlots>;
  static_assert(Shape::shared(kMaxStreamTokens) <= 227 * 1024);
  launch(gemm_w4a4_stream_kernel<Y, kWarps, kRows, kSlots>,
         dim3(static_cast<unsigned>(config.ctas), static_cast<unsigned>(config.token_tiles)),
         dim3(kWarps * 32), Shape::shared(arguments.tokens), context.stream, LaunchOptions{}, arguments);
}

}  // namespace

void gemm_w4a4_stream(const GemmContext& context, const GemmW4A4& gemm) {
  const StreamConfig config = stream_config(gemm.n, gemm.tokens, context.sm_count);
  with_output_type(gemm.y_dtype,
                   [&]<typename Y>() { launch_stream<Y, 8, 4, 2>(context, config, arguments_of(gemm)); });
}

}  // namespace atom::cuda
