#include <algorithm>
#include <bit>

#include "kernels/cuda/attention/decode_kernel.cuh"
#include "kernels/cuda/attention/launch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

/// Launches the merge so that it waits for the parts on the device instead of between two launches.
template <int kDim>
void launch_merge(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
                  const DecodeParams& params) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(kDecodeColumns, static_cast<unsigned>(args.cache.n_kv_heads * plan.column_tiles),
                        static_cast<unsigned>(args.n_sequences));
  launch.blockDim = dim3(kDim);
  launch.stream = context.stream;
  launch.attrs = &overlap;
  launch.numAttrs = 1;
  ATOM_CUDA_CHECK(cudaLaunchKernelEx(&launch, decode::merge_splits<kDim>, params));
}

template <KvFormat kFormat, int kDim>
void launch(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
            const DecodeParams& params) {
  constexpr int kBytes = decode::Shape<kFormat, kDim>::kSharedBytes;
  const auto kernel = decode::attend<kFormat, kDim>;
  ATOM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(plan.splits),
                  static_cast<unsigned>(args.cache.n_kv_heads * plan.column_tiles),
                  static_cast<unsigned>(args.n_sequences));
  kernel<<<grid, decode::kThreads, kBytes, context.stream>>>(params);
  ATOM_CUDA_CHECK(cudaGetLastError());
  if (plan.splits > 1) launch_merge<kDim>(context, args, plan, params);
}

template <KvFormat kFormat>
void launch_dim(const AttentionContext& context, const AttentionArgs& args, const DecodePlan& plan,
                const DecodeParams& params) {
  if (args.cache.head_dim == 64) {
    launch<kFormat, 64>(context, args, plan, params);
  } else {
    launch<kFormat, 128>(context, args, plan, params);
  }
}

}  // namespace

void launch_decode(const AttentionContext& context, const AttentionArgs& args) {
  const AttentionShape shape = shape_of(args);
  const DecodePlan plan = plan_decode(shape, context.sm_count);
  DecodeParams params;
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
  params.max_rows = static_cast<int>(max_decode_rows(shape));
  params.column_tiles = static_cast<int>(plan.column_tiles);
  params.splits = static_cast<int>(plan.splits);
  params.scale = args.scale;
  params.partials = static_cast<float*>(context.scratch);
  switch (args.cache.format) {
    case KvFormat::int4:
      return launch_dim<KvFormat::int4>(context, args, plan, params);
    case KvFormat::int8:
      return launch_dim<KvFormat::int8>(context, args, plan, params);
    case KvFormat::f16:
      return launch_dim<KvFormat::f16>(context, args, plan, params);
    case KvFormat::f32:
      break;
  }
  throw Error("attention on CUDA: no fast kernel for this cache");
}

}  // namespace atom::cuda
