#include "kernels/cuda/attention/decode_kernel.cuh"
#include "kernels/cuda/attention/launch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

template <KvFormat kFormat, int kDim, int kWarps>
void launch_warps(const AttentionContext& context, const DecodePlan& plan, const DecodeParams& params) {
  const dim3 grid(static_cast<unsigned>(plan.splits), static_cast<unsigned>(plan.tiles),
                  static_cast<unsigned>(plan.n_sequences));
  launch(decode::attend<kFormat, kDim, kWarps>, grid, dim3(kWarps * 32),
         decode::Shape<kFormat, kDim, kWarps>::kRingBytes, context.stream, {}, params);
}

template <KvFormat kFormat, int kDim>
void launch_parts(const AttentionContext& context, const DecodePlan& plan, const DecodeParams& params) {
  if (plan.warps == 4) {
    launch_warps<kFormat, kDim, 4>(context, plan, params);
  } else {
    launch_warps<kFormat, kDim, decode_warps_per_sm(kFormat)>(context, plan, params);
  }
}

template <KvFormat kFormat>
void launch_dim(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
                const DecodeParams& params) {
  if (args.cache.head_dim == 64) {
    launch_parts<kFormat, 64>(context, plan, params);
  } else {
    launch_parts<kFormat, 128>(context, plan, params);
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
  params.splits = static_cast<int>(plan.splits);
  params.stagger = plan.stagger;
  params.sm_count = context.sm_count;
  params.parts = context.parts;
  with_fast_format(args.cache.format,
                   [&]<KvFormat kFormat>() { launch_dim<kFormat>(context, args, plan, params); });
}

}  // namespace atom::cuda
