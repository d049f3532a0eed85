#include <algorithm>

#include "kernels/cuda/attention/launch.h"
#include "kernels/cuda/attention/prefill_kernel.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

template <KvFormat kFormat>
void launch_dim(const AttentionContext& context, const AttentionArgs& args, unsigned blocks,
                const PrefillParams& params) {
  const dim3 grid(blocks);
  const dim3 block(prefill::kThreads);
  if (args.cache.head_dim == 64) {
    launch(prefill::attend<kFormat, 64>, grid, block, prefill::Shape<kFormat, 64>::kSharedBytes,
           context.stream, {}, params);
  } else {
    launch(prefill::attend<kFormat, 128>, grid, block, prefill::Shape<kFormat, 128>::kSharedBytes,
           context.stream, {}, params);
  }
}

}  // namespace

void launch_prefill(const AttentionContext& context, const AttentionArgs& args) {
  const AttentionShape shape = shape_of(args);
  PrefillParams params = {};
  static_cast<FastParams&>(params) = fast_params(args);
  params.n_heads = static_cast<int>(args.n_heads);
  params.n_sequences = static_cast<int>(args.n_sequences);
  params.max_decode_rows = static_cast<int>(max_decode_rows(shape));
  params.row_tiles = static_cast<int>((args.max_rows + prefill::kRows - 1) / prefill::kRows);
  const int64_t items = params.row_tiles * args.n_heads * args.n_sequences;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, context.sm_count));
  with_fast_format(args.cache.format,
                   [&]<KvFormat kFormat>() { launch_dim<kFormat>(context, args, blocks, params); });
}

}  // namespace atom::cuda
