// Embedding lookup, out[t] = table[tokens[t]] widened to f32 (a block a token, 16 or 8 bytes a thread where
// rows are aligned), and conversion f32 <-> f16, bf16 (four elements a thread). Bandwidth only.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 256;

template <class In, class Out, bool kVector>
__device__ void convert_range(const In* x, Out* out, int64_t count, int64_t first, int64_t step) {
  if constexpr (kVector) {
    for (int64_t i = 4 * first; i < count; i += 4 * step) store4(out + i, load4(x + i));
  } else {
    for (int64_t i = first; i < count; i += step) out[i] = narrow<Out>(widen(x[i]));
  }
}

template <class In, bool kVector>
__global__ void __launch_bounds__(kThreads) embedding_kernel(const EmbeddingArgs a) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t token = blockIdx.x;
  convert_range<In, float, kVector>(static_cast<const In*>(a.table.data) + a.tokens[token] * a.table.stride,
                                    static_cast<float*>(a.out.data) + token * a.out.stride, a.out.cols,
                                    threadIdx.x, blockDim.x);
}

template <class In, class Out, bool kVector>
__global__ void __launch_bounds__(kThreads) convert_kernel(const In* x, Out* out, int64_t count) {
  launch_dependents();
  wait_for_dependencies();
  convert_range<In, Out, kVector>(x, out, count, int64_t{blockIdx.x} * kThreads + threadIdx.x,
                                  int64_t{gridDim.x} * kThreads);
}

template <class In, class Out>
void launch_convert(const ConvertArgs& a, cudaStream_t stream) {
  const bool vector = a.count % 4 == 0 && is_aligned(a.x, 0, a.from) && is_aligned(a.out, 0, a.to);
  const int64_t items = vector ? a.count / 4 : a.count;
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>((items + kThreads - 1) / kThreads, 132 * 32)));
  launch(vector ? convert_kernel<In, Out, true> : convert_kernel<In, Out, false>, grid, kThreads, 0, stream,
         {}, static_cast<const In*>(a.x), static_cast<Out*>(a.out), a.count);
}

}  // namespace

void embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  expect(args.table.cols == args.out.cols && args.out.dtype == DType::f32, "embedding: shapes differ");
  if (args.out.rows == 0) return;
  const bool vector = args.out.cols % 4 == 0 &&
                      is_aligned(args.table.data, args.table.stride, args.table.dtype) &&
                      is_aligned(args.out.data, args.out.stride, DType::f32);
  with_type(args.table.dtype, [&](auto type) {
    using In = typename decltype(type)::type;
    launch(vector ? embedding_kernel<In, true> : embedding_kernel<In, false>,
           dim3(static_cast<unsigned>(args.out.rows)), kThreads, 0, stream, {}, args);
  });
}

void convert(const ConvertArgs& args, cudaStream_t stream) {
  expect((args.from == DType::f32) != (args.to == DType::f32),
         "convert: one side is f32, the other f16 or bf16");
  if (args.count == 0) return;
  if (args.from == DType::f32) {
    with_type(args.to, [&](auto to) { launch_convert<float, typename decltype(to)::type>(args, stream); });
  } else {
    with_type(args.from,
              [&](auto from) { launch_convert<typename decltype(from)::type, float>(args, stream); });
  }
}

}  // namespace atom::cuda
