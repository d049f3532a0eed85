#pragma once

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/config.h"

/// The launches behind attention(), one file a kernel.
namespace atom::cuda {

inline AttentionShape shape_of(const AttentionArgs& args) {
  return {args.n_sequences, args.max_rows,         args.max_context,
          args.n_heads,     args.cache.n_kv_heads, args.cache.head_dim};
}

void launch_exact(const AttentionContext& context, const AttentionArgs& args);

/// Sequences of at most max_decode_rows() rows; others are skipped.
void launch_decode(const AttentionContext& context, const AttentionArgs& args);

/// Sequences of more than max_decode_rows() rows; others are skipped.
void launch_prefill(const AttentionContext& context, const AttentionArgs& args);

}  // namespace atom::cuda
