#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/config.h"
#include "kernels/kv_view.h"
#include "kernels/ops.h"
#include "tensor/dtype.h"

/// Causal attention over the paged cache on sm_90 (docs/kernels/attention.md). Three kernels: an exact one,
/// bit-identical with the CPU (kernels/reference/attention.h), one for a few rows a sequence (decode) and one
/// for many (prefill).
namespace atom::cuda {

/// What Attention of kernels/ops.h is, with every pointer in device memory.
struct AttentionArgs {
  /// [tokens, n_heads * head_dim], rows q_stride (out_stride) elements apart. f32, f16 or bf16.
  const void* q = nullptr;
  DType q_dtype = DType::f32;
  int64_t q_stride = 0;
  void* out = nullptr;
  DType out_dtype = DType::f32;
  int64_t out_stride = 0;
  /// In device memory, and so are the tables of blocks that they point to. Both are read before the kernel
  /// ahead on the stream has ended, and so are cached rows ahead of a sequence's own n_rows: something older
  /// has to have written them.
  const SequenceSpan* sequences = nullptr;
  int64_t n_sequences = 0;
  /// No sequence has more rows, no context is longer. The geometry of the launch depends on these alone, so
  /// that a CUDA graph can be replayed with other sequences within them.
  int64_t max_rows = 0;
  int64_t max_context = 0;
  /// No sequence has fewer rows; 0 if unknown. Kernels that would find nothing to do are not launched.
  int64_t min_rows = 0;
  KvLayerView cache;
  int64_t n_heads = 0;
  float scale = 0.0f;
  /// Keys that a row sees at most; 0: all. The fast kernels know none.
  int64_t window = 0;
};

struct AttentionContext {
  cudaStream_t stream = nullptr;
  int sm_count = 0;
  /// At least attention_scratch_bytes(), aligned to 256 bytes; used until the launch's work has ended.
  void* scratch = nullptr;
  size_t scratch_bytes = 0;
  /// kAttentionParts * kAttentionPartFloats of them, all bits set before the first launch; every launch
  /// leaves them so.
  float* parts = nullptr;
  /// Every float operation in the contract's order. Needs q and out in f32.
  bool exact = true;
};

/// What attention() needs for these arguments.
size_t attention_scratch_bytes(const AttentionArgs& args, int sm_count, bool exact);

/// Whether the fast kernels take these arguments: head_dim 64 or 128, formats int4, int8 and f16, rows of q
/// and out aligned to 16 bytes, no window.
bool supports_fast_attention(const AttentionArgs& args);

/// Whether the exact kernel takes them: f32 q and out, head_dim even and at most 256.
bool supports_exact_attention(const AttentionArgs& args);

/// Launches the kernels on context.stream. Rows that belong to no sequence are left alone. Throws Error where
/// the arguments are not supported or a launch fails.
void attention(const AttentionContext& context, const AttentionArgs& args);

}  // namespace atom::cuda
