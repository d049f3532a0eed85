#include <algorithm>

#include "kernels/cuda/attention/decode_kernel.cuh"
#include "kernels/cuda/attention/launch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

template <KvFormat kFormat, int kDim>
void launch_parts(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
                  const DecodeParams& params) {
  static_assert(decode::Shape<kFormat, kDim>::kBlocksPerSm == decode_blocks_per_sm(kFormat));
  launch(decode::attend<kFormat, kDim>, dim3(static_cast<unsigned>(plan.items)), dim3(decode::kThreads),
         decode::Shape<kFormat, kDim>::kRingBytes, context.stream, {}, params);
  if (plan.splits > 1) {
    const dim3 grid(kDecodeColumns, static_cast<unsigned>(params.tiles),
                    static_cast<unsigned>(args.n_sequences));
    launch(decode::merge_splits<kDim>, grid, dim3(kDim * decode::kMergeGroups), 0, context.stream, {},
           params);
  }
}

template <KvFormat kFormat>
void launch_dim(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
                const DecodeParams& params) {
  if (args.cache.head_dim == 64) {
    launch_parts<kFormat, 64>(context, args, plan, params);
  } else {
    launch_parts<kFormat, 128>(context, args, plan, params);
  }
}

}  // namespace

void launch_decode(const AttentionContext& context, const AttentionArgs& args) {
  const AttentionShape shape = shape_of(args);
  const DecodePlan plan = plan_decode(shape, args.cache.format, context.sm_count);
  DecodeParams params = {};
  static_cast<FastParams&>(params) = fast_params(args);
  params.max_rows = static_cast<int>(max_decode_rows(shape));
  params.column_tiles = static_cast<int>(plan.column_tiles);
  params.tiles = static_cast<int>(args.cache.n_kv_heads * plan.column_tiles);
  params.n_items = static_cast<int>(plan.items);
  params.splits = static_cast<int>(plan.splits);
  params.partials = static_cast<float*>(context.scratch);
  with_fast_format(args.cache.format,
                   [&]<KvFormat kFormat>() { launch_dim<kFormat>(context, args, plan, params); });
}

}  // namespace atom::cuda
