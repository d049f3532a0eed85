#include <string>

#include "base/error.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/attention/launch.h"

namespace atom::cuda {
namespace {

constexpr int64_t kMaxGridYz = 65535;

void check(bool condition, const char* what) {
  if (!condition) throw Error(std::string("attention on CUDA: ") + what);
}

bool consistent(const AttentionArgs& args) {
  const KvLayerView& cache = args.cache;
  return cache.n_kv_heads > 0 && args.n_heads % cache.n_kv_heads == 0 && cache.block_size >= 8 &&
         (cache.block_size & (cache.block_size - 1)) == 0 && args.n_sequences <= kMaxGridYz &&
         cache.n_kv_heads <= kMaxGridYz && args.n_heads <= kMaxGridYz;
}

}  // namespace

bool supports_exact_attention(const AttentionArgs& args) {
  return consistent(args) && args.q_dtype == DType::f32 && args.out_dtype == DType::f32 &&
         args.cache.head_dim % 2 == 0 && args.cache.head_dim <= 256;
}

bool supports_fast_attention(const AttentionArgs& args) {
  const auto aligned = [](const void* data, DType type, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
           stride * static_cast<int64_t>(size_of(type)) % 16 == 0;
  };
  return consistent(args) && args.window == 0 && aligned(args.q, args.q_dtype, args.q_stride) &&
         aligned(args.out, args.out_dtype, args.out_stride) && is_float(args.q_dtype) &&
         is_float(args.out_dtype) && args.cache.format != KvFormat::f32 &&
         (args.cache.head_dim == 64 || args.cache.head_dim == 128);
}

size_t attention_scratch_bytes(const AttentionArgs& args, int sm_count, bool exact) {
  const AttentionShape shape = shape_of(args);
  if (!exact || shape.n_sequences == 0 || shape.max_rows == 0) return 0;
  return plan_exact(shape, sm_count).scratch_bytes;
}

void attention(const AttentionContext& context, const AttentionArgs& args) {
  if (args.n_sequences == 0 || args.max_rows == 0) return;
  check(context.scratch_bytes >= attention_scratch_bytes(args, context.sm_count, context.exact),
        "too little scratch memory");
  if (context.exact) {
    check(supports_exact_attention(args), "arguments that the exact kernel does not support");
    launch_exact(context, args);
    return;
  }
  check(supports_fast_attention(args), "arguments that the fast kernels do not support");
  check(context.parts != nullptr, "no memory for parts");
  const int64_t few = max_decode_rows(shape_of(args));
  if (args.min_rows <= few) launch_decode(context, args);
  if (args.max_rows > few) launch_prefill(context, args);
}

}  // namespace atom::cuda
