#include <algorithm>
#include <bit>

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
    launch(prefill::attend<kFormat, 64>, grid, block, prefill::Shape<64>::kSharedBytes, context.stream, {},
           params);
  } else {
    launch(prefill::attend<kFormat, 128>, grid, block, prefill::Shape<128>::kSharedBytes, context.stream, {},
           params);
  }
}

}  // namespace

void launch_prefill(const AttentionContext& context, const AttentionArgs& args) {
  const AttentionShape shape = shape_of(args);
  PrefillParams params;
  params.q = args.q;
  params.q_dtype = args.q_dtype;
  params.q_stride = args.q_stride;
  params.out = args.out;
  params.out_dtype = args.out_dtype;
  params.out_stride = args.out_stride;
  params.sequences = args.sequences;
  params.cache = args.cache;
  params.block_shift = std::countr_zero(static_cast<uint64_t>(args.cache.block_size));
  params.group = static_cast<int>(shape.group());
  params.n_heads = static_cast<int>(args.n_heads);
  params.n_sequences = static_cast<int>(args.n_sequences);
  params.max_decode_rows = static_cast<int>(max_decode_rows(shape));
  params.row_tiles = static_cast<int>((args.max_rows + prefill::kRows - 1) / prefill::kRows);
  params.scale = args.scale;
  const int64_t items = params.row_tiles * args.n_heads * args.n_sequences;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, context.sm_count));
  switch (args.cache.format) {
    case KvFormat::int4:
      return launch_dim<KvFormat::int4>(context, args, blocks, params);
    case KvFormat::int8:
      return launch_dim<KvFormat::int8>(context, args, blocks, params);
    case KvFormat::f16:
      return launch_dim<KvFormat::f16>(context, args, blocks, params);
    case KvFormat::f32:
      break;
  }
  throw Error("attention on CUDA: no fast kernel for this cache");
}

}  // namespace atom::cuda
