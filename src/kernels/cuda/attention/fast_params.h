#pragma once

#include <bit>

#include "base/error.h"
#include "kernels/cuda/attention/launch.h"

/// What the two fast kernels are given alike.
namespace atom::cuda {

struct FastParams {
  const void* q;
  DType q_dtype;
  int64_t q_stride;
  void* out;
  DType out_dtype;
  int64_t out_stride;
  const SequenceSpan* sequences;
  KvLayerView cache;
  int block_shift;
  int group;
  float scale;
};

inline FastParams fast_params(const AttentionArgs& args) {
  return {args.q,
          args.q_dtype,
          args.q_stride,
          args.out,
          args.out_dtype,
          args.out_stride,
          args.sequences,
          args.cache,
          std::countr_zero(static_cast<uint64_t>(args.cache.block_size)),
          static_cast<int>(shape_of(args).group()),
          args.scale};
}

/// Calls body.operator()<format>(). Throws Error for a format that the fast kernels do not read.
template <class Body>
void with_fast_format(KvFormat format, const Body& body) {
  switch (format) {
    case KvFormat::int4:
      return body.template operator()<KvFormat::int4>();
    case KvFormat::int8:
      return body.template operator()<KvFormat::int8>();
    case KvFormat::f16:
      return body.template operator()<KvFormat::f16>();
    case KvFormat::f32:
      break;
  }
  throw Error("attention on CUDA: no fast kernel for this cache");
}

}  // namespace atom::cuda
