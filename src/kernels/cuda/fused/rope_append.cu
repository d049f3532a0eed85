// RoPE on q and k, an optional Hadamard transform of their heads, then k and v into the paged cache (f32,
// f16, int8 or int4). q [tokens, n_heads * d] f32 in place; k, v [tokens, n_kv_heads * d] f32; KvLayerView
// for the cache. A row is one head of q, k or v of a token. Fast form, d = 32, 64, 128 or 256: d / 4 lanes a
// row (32 at most), each with kPairs pairs of neighbours (2i, 2i + 1) of the lower half and their partners of
// the upper one, so that RoPE needs no exchange, the butterflies of distance 2 ... d/4 are shuffles, and a
// lane packs whole bytes. General form, any even d: a warp a row in shared memory. Minimum and maximum by
// shuffles: their order does not matter. Every float operation is that of the reference (reference/rope.cpp).
// Source: Atom, section 4.4; docs/numerics.md.

#include <bit>
#include <cmath>

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 128;

struct Rope {
  RopeAppendArgs args;
  /// 1 / sqrt(head_dim), rounded as the reference does.
  float norm;
  /// Rows of a token: heads of q, then of k, then of v.
  int64_t rows;
};

/// Where a row comes from and goes to.
struct Row {
  enum class Kind { query, key, value } kind;
  int64_t token;
  const float* from;
  /// Index of the row in the cache; negative: not stored.
  int64_t cache_row;

  __device__ Row(const Rope& a, int64_t index) {
    const RopeAppendArgs& args = a.args;
    const int64_t d = args.cache.head_dim;
    token = index / a.rows;
    int64_t head = index % a.rows;
    cache_row = -1;
    if (head < args.n_heads) {
      kind = Kind::query;
      from = args.q + token * args.q_stride + head * d;
      return;
    }
    head -= args.n_heads;
    kind = head < args.cache.n_kv_heads ? Kind::key : Kind::value;
    if (kind == Kind::value) head -= args.cache.n_kv_heads;
    from = (kind == Kind::key ? args.k + token * args.k_stride : args.v + token * args.v_stride) + head * d;
    const int64_t slot = args.slots[token];
    if (slot >= 0) {
      cache_row = (slot / args.cache.block_size * args.cache.n_kv_heads + head) * args.cache.block_size +
                  slot % args.cache.block_size;
    }
  }
  __device__ uint8_t* cache(const KvLayerView& view, int64_t row_bytes) const {
    std::byte* base = kind == Kind::key ? view.keys : view.values;
    return reinterpret_cast<uint8_t*>(base) + cache_row * row_bytes;
  }
  __device__ uint32_t* params(const KvLayerView& view) const {
    return reinterpret_cast<uint32_t*>(kind == Kind::key ? view.key_params : view.value_params) + cache_row;
  }
};

__device__ uint32_t pack_params(const numerics::KvParams& p) {
  return static_cast<uint32_t>(narrow<Half>(p.scale).bits) |
         static_cast<uint32_t>(narrow<Half>(p.minimum).bits) << 16;
}

__device__ uint16_t cache_half(float x) {
  return narrow<Half>(numerics::finite_half(x)).bits;
}

/// kLanes lanes a row of kLanes * kPairs * 4 elements: lane l has x[p][0], x[p][1] = elements 2(l + p *
/// kLanes) and the next, of the lower half, x[p][2], x[p][3] the same of the upper half.
template <int kLanes, int kPairs>
__global__ void __launch_bounds__(kThreads) rope_append_kernel(const Rope a) {
  constexpr int kDim = kLanes * kPairs * 4, kHalf = kDim / 2;
  launch_dependents();
  wait_for_dependencies();
  const RopeAppendArgs& args = a.args;
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const bool real = index < args.tokens * a.rows;
  const Row row(a, real ? index : 0);
  const auto place = [&](int p) { return 2 * (lane + p * kLanes); };

  float x[kPairs][4];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const float2 low = *reinterpret_cast<const float2*>(row.from + place(p));
    const float2 high = *reinterpret_cast<const float2*>(row.from + kHalf + place(p));
    x[p][0] = low.x, x[p][1] = low.y, x[p][2] = high.x, x[p][3] = high.y;
  }
  // Whole warps take part in the shuffles below, rows of v and rows past the end too; their results are
  // dropped.
  const bool turn = row.kind != Row::Kind::value;
  const int64_t position = args.positions[row.token];
  float y[kPairs][4];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const float2 cosine = *reinterpret_cast<const float2*>(args.cos + position * kHalf + place(p));
    const float2 sine = *reinterpret_cast<const float2*>(args.sin + position * kHalf + place(p));
    const auto first = numerics::rotate(x[p][0], x[p][2], cosine.x, sine.x);
    const auto second = numerics::rotate(x[p][1], x[p][3], cosine.y, sine.y);
    y[p][0] = first.first, y[p][2] = first.second, y[p][1] = second.first, y[p][3] = second.second;
  }
  if (args.rotate) {
    const auto butterfly = [](float& low, float& high) {
      const float sum = low + high;
      high = low - high;
      low = sum;
    };
#pragma unroll
    for (int p = 0; p < kPairs; ++p) butterfly(y[p][0], y[p][1]), butterfly(y[p][2], y[p][3]);
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      const bool upper = (lane & distance) != 0;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        for (float& own : y[p]) {
          const float other = __shfl_xor_sync(~0u, own, distance);
          own = upper ? other - own : own + other;
        }
      }
    }
    if constexpr (kPairs == 2) {
      for (int i = 0; i < 4; ++i) butterfly(y[0][i], y[1][i]);
    }
    static_assert(kPairs <= 2);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) butterfly(y[p][0], y[p][2]), butterfly(y[p][1], y[p][3]);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      for (float& own : y[p]) own *= a.norm;
    }
  }
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    for (int i = 0; i < 4; ++i) x[p][i] = turn ? y[p][i] : x[p][i];
  }

  const KvFormat format = args.cache.format;
  numerics::KvParams params{};
  const float levels = format == KvFormat::int4 ? 15.0f : 255.0f;
  if (is_quantized(format)) {
    float low = INFINITY, high = -INFINITY;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      for (const float f : x[p]) low = fminf(low, f), high = fmaxf(high, f);
    }
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      low = fminf(low, __shfl_xor_sync(~0u, low, distance));
      high = fmaxf(high, __shfl_xor_sync(~0u, high, distance));
    }
    params = numerics::kv_params(low, high, levels);
  }
  if (!real) return;
  if (row.kind == Row::Kind::query) {
    float* q = const_cast<float*>(row.from);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      *reinterpret_cast<float2*>(q + place(p)) = make_float2(x[p][0], x[p][1]);
      *reinterpret_cast<float2*>(q + kHalf + place(p)) = make_float2(x[p][2], x[p][3]);
    }
    return;
  }
  if (row.cache_row < 0) return;
  const float inverse = numerics::inverse_scale(params.scale);
  const auto q = [&](float f) { return quantize_bits(f - params.minimum, inverse, 0.0f, levels) & 0xFFu; };
  uint8_t* out = row.cache(args.cache, int64_t{kDim} * bits_of(format) / 8);
  if (is_quantized(format) && lane == 0) *row.params(args.cache) = pack_params(params);
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    for (int half = 0; half < 2; ++half) {
      const float first = x[p][2 * half], second = x[p][2 * half + 1];
      const int at = half * kHalf + place(p);
      switch (format) {
        case KvFormat::f32:
          *reinterpret_cast<float2*>(out + 4 * at) = make_float2(first, second);
          break;
        case KvFormat::f16:
          *reinterpret_cast<ushort2*>(out + 2 * at) = make_ushort2(cache_half(first), cache_half(second));
          break;
        case KvFormat::int8:
          *reinterpret_cast<uint16_t*>(out + at) = static_cast<uint16_t>(q(first) | q(second) << 8);
          break;
        case KvFormat::int4:
          out[at / 2] = static_cast<uint8_t>(q(first) | q(second) << 4);
          break;
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads) rope_append_general_kernel(const Rope a) {
  extern __shared__ float shared[];
  launch_dependents();
  wait_for_dependencies();
  const RopeAppendArgs& args = a.args;
  const KvLayerView& cache = args.cache;
  const int dim = static_cast<int>(cache.head_dim), half = dim / 2;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t index = int64_t{blockIdx.x} * (kThreads / 32) + warp;
  if (index >= args.tokens * a.rows) return;
  const Row row(a, index);
  float* x = shared + warp * dim;
  for (int i = lane; i < dim; i += 32) x[i] = row.from[i];
  __syncwarp();
  if (row.kind != Row::Kind::value) {
    const int64_t position = args.positions[row.token];
    for (int i = lane; i < half; i += 32) {
      const auto pair =
          numerics::rotate(x[i], x[i + half], args.cos[position * half + i], args.sin[position * half + i]);
      x[i] = pair.first;
      x[i + half] = pair.second;
    }
    __syncwarp();
    for (int distance = 1; args.rotate && distance < dim; distance *= 2) {
      for (int i = lane; i < half; i += 32) {
        const int low = i / distance * 2 * distance + i % distance;
        const float first = x[low], second = x[low + distance];
        x[low] = first + second;
        x[low + distance] = first - second;
      }
      __syncwarp();
    }
    if (args.rotate) {
      for (int i = lane; i < dim; i += 32) x[i] *= a.norm;
      __syncwarp();
    }
  }
  if (row.kind == Row::Kind::query) {
    for (int i = lane; i < dim; i += 32) const_cast<float*>(row.from)[i] = x[i];
    return;
  }
  if (row.cache_row < 0) return;
  uint8_t* out = row.cache(cache, cache.head_dim * bits_of(cache.format) / 8);
  if (cache.format == KvFormat::f32) {
    for (int i = lane; i < dim; i += 32) reinterpret_cast<float*>(out)[i] = x[i];
    return;
  }
  if (cache.format == KvFormat::f16) {
    for (int i = lane; i < dim; i += 32) reinterpret_cast<uint16_t*>(out)[i] = cache_half(x[i]);
    return;
  }
  float low = INFINITY, high = -INFINITY;
  for (int i = lane; i < dim; i += 32) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
  const float levels = cache.format == KvFormat::int4 ? 15.0f : 255.0f;
  const numerics::KvParams params = numerics::kv_params(warp_min(low), warp_max(high), levels);
  if (lane == 0) *row.params(cache) = pack_params(params);
  const float inverse = numerics::inverse_scale(params.scale);
  const auto q = [&](int i) { return quantize_bits(x[i] - params.minimum, inverse, 0.0f, levels) & 0xFFu; };
  if (cache.format == KvFormat::int8) {
    for (int i = lane; i < dim; i += 32) out[i] = static_cast<uint8_t>(q(i));
  } else {
    for (int i = lane; i < half; i += 32) out[i] = static_cast<uint8_t>(q(2 * i) | q(2 * i + 1) << 4);
  }
}

}  // namespace

void rope_append(const RopeAppendArgs& args, cudaStream_t stream) {
  const int64_t d = args.cache.head_dim;
  expect(d > 0 && d % 2 == 0 && (!args.rotate || std::has_single_bit(static_cast<uint64_t>(d))),
         "rope_append: head_dim must be even, and a power of two where heads are rotated");
  const Rope a{args, static_cast<float>(1.0 / std::sqrt(static_cast<double>(d))),
               args.n_heads + 2 * args.cache.n_kv_heads};
  const int64_t rows = args.tokens * a.rows;
  const bool aligned = args.q_stride % 2 == 0 && args.k_stride % 2 == 0 && args.v_stride % 2 == 0 &&
                       is_aligned(args.q, 0, DType::f32) && is_aligned(args.k, 0, DType::f32) &&
                       is_aligned(args.v, 0, DType::f32) && is_aligned(args.cos, 0, DType::f32) &&
                       is_aligned(args.sin, 0, DType::f32);
  if (rows == 0) return;
  const auto run = [&](auto kernel, int lanes) {
    launch(kernel, dim3(blocks_for(rows, kThreads / lanes)), kThreads, 0, stream, {}, a);
  };
  if (aligned && d == 32) return run(rope_append_kernel<8, 1>, 8);
  if (aligned && d == 64) return run(rope_append_kernel<16, 1>, 16);
  if (aligned && d == 128) return run(rope_append_kernel<32, 1>, 32);
  if (aligned && d == 256) return run(rope_append_kernel<32, 2>, 32);
  launch(rope_append_general_kernel, dim3(blocks_for(rows, kThreads / 32)), kThreads,
         static_cast<size_t>(kThreads / 32 * d) * sizeof(float), stream, {}, a);
}

}  // namespace atom::cuda
