#include "kernels/cuda/attention/exact_kernel.cuh"
#include "kernels/cuda/attention/launch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

template <int kDim, int kRows>
void launch_segments(const AttentionContext& context, const AttentionArgs& args, const ExactPlan& plan,
                     const ExactParams& params) {
  constexpr size_t kBytes = exact::shared_floats<kDim, kRows>() * sizeof(float);
  const dim3 grid(static_cast<unsigned>(plan.row_tiles * (plan.split ? plan.segments : 1)),
                  static_cast<unsigned>(args.cache.n_kv_heads), static_cast<unsigned>(args.n_sequences));
  launch(exact::attend<kDim, kRows>, grid, dim3(exact::kThreads), kBytes, context.stream, {}, params,
         plan.row_tiles, plan.split);
}

template <int kDim>
void launch_rows(const AttentionContext& context, const AttentionArgs& args, const ExactPlan& plan,
                 const ExactParams& params) {
  if (plan.rows == 8) {
    launch_segments<kDim, 8>(context, args, plan, params);
  } else {
    launch_segments<kDim, 32>(context, args, plan, params);
  }
}

}  // namespace

void launch_exact(const AttentionContext& context, const AttentionArgs& args) {
  const AttentionShape shape = shape_of(args);
  const ExactPlan plan = plan_exact(shape, context.sm_count);
  ExactParams params;
  params.q = static_cast<const float*>(args.q);
  params.q_stride = args.q_stride;
  params.out = static_cast<float*>(args.out);
  params.out_stride = args.out_stride;
  params.sequences = args.sequences;
  params.cache = args.cache;
  params.group = static_cast<int>(shape.group());
  params.scale = args.scale;
  params.window = args.window > 0 ? args.window : args.max_context;
  params.max_rows = args.max_rows;
  params.segments = plan.segments;
  params.partials = static_cast<float*>(context.scratch);
  if (plan.padded_dim == 64) {
    launch_rows<64>(context, args, plan, params);
  } else if (plan.padded_dim == 128) {
    launch_rows<128>(context, args, plan, params);
  } else {
    launch_segments<256, 8>(context, args, plan, params);
  }
  if (plan.split) {
    const dim3 grid(static_cast<unsigned>(args.n_heads), static_cast<unsigned>(args.max_rows),
                    static_cast<unsigned>(args.n_sequences));
    launch(exact::merge_segments, grid, dim3(exact::kThreads), 0, context.stream, {}, params);
  }
}

}  // namespace atom::cuda
