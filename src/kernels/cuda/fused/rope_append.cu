// RoPE on q and k, an optional Hadamard transform of their heads, then k and v into the paged cache (f32,
// f16, int8 or int4). q [tokens, n_heads * d] f32 in place; k, v [tokens, n_kv_heads * d] f32; KvLayerView
// for the cache. A row is one head of q, k or v of a token. Fast form, d = 32, 64, 128 or 256: d / 4 lanes a
// row (32 at most), each with kPairs pairs of neighbours (2i, 2i + 1) of the lower half and their partners of
// the upper one, so that RoPE needs no exchange, the butterflies of distance 2 ... d/4 are shuffles, and a
// lane packs whole bytes; one or four rows of a token each, whose angles they share. General form, any even
// d: a warp a row in shared memory. Minimum and maximum by reductions of the warp: their order does not
// matter. Every float operation is that of the reference (reference/rope.cpp).
// Source: Atom, section 4.4; docs/numerics.md.

#include <bit>
#include <cmath>

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 128;
/// Rows a multiprocessor up to which each warp takes one: as many as its warps.
constexpr int kFewRows = 64;

struct Rope {
  RopeAppendArgs args;
  /// 1 / sqrt(head_dim), rounded as the reference does.
  float norm;
  /// Rows of a token: heads of q, then of k, then of v.
  int64_t rows;
};

/// Where a token lies in the cache.
struct Place {
  int64_t page;
  int in_page;
  bool is_stored;

  __device__ Place(const RopeAppendArgs& args, int64_t token) {
    const int64_t slot = args.slots[token], size = args.cache.block_size;
    is_stored = slot >= 0;
    page = is_stored ? slot / size : 0;
    in_page = static_cast<int>(slot - page * size);
  }
};

/// Where a row comes from and goes to.
struct Row {
  enum class Kind { query, key, value } kind;
  const float* from;
  /// Index of the row in the cache; negative: not stored.
  int64_t cache_row;

  /// The token's row `head`, counted over q, k and v.
  __device__ Row(const RopeAppendArgs& args, int64_t token, int head, const Place& place) {
    const int d = static_cast<int>(args.cache.head_dim);
    const int n_heads = static_cast<int>(args.n_heads), n_kv_heads = static_cast<int>(args.cache.n_kv_heads);
    cache_row = -1;
    if (head < n_heads) {
      kind = Kind::query;
      from = args.q + token * args.q_stride + head * d;
      return;
    }
    head -= n_heads;
    kind = head < n_kv_heads ? Kind::key : Kind::value;
    if (kind == Kind::value) head -= n_kv_heads;
    from = (kind == Kind::key ? args.k + token * args.k_stride : args.v + token * args.v_stride) + head * d;
    if (place.is_stored) cache_row = (place.page * n_kv_heads + head) * args.cache.block_size + place.in_page;
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

/// Least and largest value of a row's lanes; none is NaN.
struct Range {
  float low, high;
};
template <int kLanes>
__device__ Range row_range(Range own) {
  if constexpr (kLanes == 32) {
    // Integers in the order of the floats.
    const auto ordered = [](int bits) { return bits ^ (bits >> 31 & 0x7FFFFFFF); };
    const int low = __reduce_min_sync(~0u, ordered(__float_as_int(own.low)));
    const int high = __reduce_max_sync(~0u, ordered(__float_as_int(own.high)));
    return {__int_as_float(ordered(low)), __int_as_float(ordered(high))};
  } else {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      own.low = fminf(own.low, __shfl_xor_sync(~0u, own.low, distance));
      own.high = fmaxf(own.high, __shfl_xor_sync(~0u, own.high, distance));
    }
    return own;
  }
}

/// Sum and difference in place.
__device__ void butterfly(float& low, float& high) {
  const float sum = low + high;
  high = low - high;
  low = sum;
}

/// A lane's part of a row of kLanes * kPairs * 4 elements: x[p][0], x[p][1] are the elements 2(lane + p *
/// kLanes) and the next, of the lower half, x[p][2], x[p][3] the same of the upper half.
template <int kLanes, int kPairs>
struct Part {
  static constexpr int kDim = kLanes * kPairs * 4, kHalf = kDim / 2;
  float x[kPairs][4];

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kLanes; }
  __device__ static int place(int p) { return 2 * (lane() + p * kLanes); }

  __device__ void load(const float* from) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const float2 low = *reinterpret_cast<const float2*>(from + place(p));
      const float2 high = *reinterpret_cast<const float2*>(from + kHalf + place(p));
      x[p][0] = low.x, x[p][1] = low.y, x[p][2] = high.x, x[p][3] = high.y;
    }
  }
  __device__ void store(float* to) const {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      *reinterpret_cast<float2*>(to + place(p)) = make_float2(x[p][0], x[p][1]);
      *reinterpret_cast<float2*>(to + kHalf + place(p)) = make_float2(x[p][2], x[p][3]);
    }
  }
  __device__ void turn(const float2 (&cosine)[kPairs], const float2 (&sine)[kPairs]) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const auto first = numerics::rotate(x[p][0], x[p][2], cosine[p].x, sine[p].x);
      const auto second = numerics::rotate(x[p][1], x[p][3], cosine[p].y, sine[p].y);
      x[p][0] = first.first, x[p][2] = first.second, x[p][1] = second.first, x[p][3] = second.second;
    }
  }
  /// By whole warps.
  __device__ void hadamard(float norm) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) butterfly(x[p][0], x[p][1]), butterfly(x[p][2], x[p][3]);
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      const float sign = (lane() & distance) != 0 ? -1.0f : 1.0f;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        // other - own in the upper lane, own + other in the lower one: the product is exact.
        for (float& own : x[p]) own = fmaf(own, sign, __shfl_xor_sync(~0u, own, distance));
      }
    }
    if constexpr (kPairs == 2) {
      for (int i = 0; i < 4; ++i) butterfly(x[0][i], x[1][i]);
    }
    static_assert(kPairs <= 2);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) butterfly(x[p][0], x[p][2]), butterfly(x[p][1], x[p][3]);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      for (float& own : x[p]) own *= norm;
    }
  }
  /// By whole warps.
  __device__ Range range() const {
    Range own{INFINITY, -INFINITY};
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      for (const float f : x[p]) own = {fminf(own.low, f), fmaxf(own.high, f)};
    }
    return row_range<kLanes>(own);
  }
  __device__ void store_cache(KvFormat format, float minimum, float inverse, float levels,
                              uint8_t* out) const {
    const auto q = [&](float f) { return quantize_bits(f - minimum, inverse, 0.0f, levels) & 0xFFu; };
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
#pragma unroll
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
};

/// kLanes lanes take kRows neighbouring rows of a token, blockIdx.x, and load all of them first.
template <int kLanes, int kPairs, int kRows>
__global__ void __launch_bounds__(kThreads) rope_append_kernel(const Rope a) {
  using RowPart = Part<kLanes, kPairs>;
  const RopeAppendArgs& args = a.args;
  launch_dependents();
  const int64_t token = blockIdx.x;
  const int rows = static_cast<int>(a.rows);
  const int first = static_cast<int>((blockIdx.y * kThreads + threadIdx.x) / kLanes) * kRows;
  const Place place(args, token);
  const int64_t angle = args.positions[token] * int64_t{RowPart::kHalf};
  float2 cosine[kPairs], sine[kPairs];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    cosine[p] = *reinterpret_cast<const float2*>(args.cos + angle + RowPart::place(p));
    sine[p] = *reinterpret_cast<const float2*>(args.sin + angle + RowPart::place(p));
  }
  wait_for_dependencies();

  // Whole warps take part in shuffles, those of rows past the end too: theirs is row 0.
  RowPart parts[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    parts[i].load(Row(args, token, first + i < rows ? first + i : 0, place).from);
  }
  const KvFormat format = args.cache.format;
  const float levels = format == KvFormat::int4 ? 15.0f : 255.0f;
  using Kind = Row::Kind;
  const auto row_at = [&](int i) { return Row(args, token, first + i < rows ? first + i : 0, place); };
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const bool turns = row_at(i).kind != Kind::value;
    if (!__any_sync(~0u, turns)) continue;
    RowPart turned = parts[i];
    turned.turn(cosine, sine);
    if (args.rotate) turned.hadamard(a.norm);
    if (turns) parts[i] = turned;
  }
  // The divisions of all rows at once: lane i % kRows of a row's lanes has those of the i-th.
  numerics::KvParams params{};
  float inverse = 0.0f;
  const int mine = RowPart::lane() % kRows;
  if (is_quantized(format) && __any_sync(~0u, first + kRows > args.n_heads)) {
    Range range{};
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Range of_row = parts[i].range();
      if (mine == i) range = of_row;
    }
    params = numerics::kv_params(range.low, range.high, levels);
    inverse = numerics::inverse_scale(params.scale);
    const Row row = row_at(mine);
    if (RowPart::lane() < kRows && first + mine < rows && row.cache_row >= 0) {
      *row.params(args.cache) = pack_params(params);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float minimum = __shfl_sync(~0u, params.minimum, i, kLanes);
    const float inverse_of_row = __shfl_sync(~0u, inverse, i, kLanes);
    if (first + i >= rows) continue;
    const Row row = row_at(i);
    if (row.kind == Kind::query) {
      parts[i].store(const_cast<float*>(row.from));
    } else if (row.cache_row >= 0) {
      parts[i].store_cache(format, minimum, inverse_of_row, levels,
                           row.cache(args.cache, int64_t{RowPart::kDim} * bits_of(format) / 8));
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
  const int64_t token = index / a.rows;
  const Row row(args, token, static_cast<int>(index % a.rows), Place(args, token));
  float* x = shared + warp * dim;
  for (int i = lane; i < dim; i += 32) x[i] = row.from[i];
  __syncwarp();
  if (row.kind != Row::Kind::value) {
    const int64_t position = args.positions[token];
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
  // Few tokens: a row a warp, for the shortest time. Many: four, for more loads in flight.
  const bool few = rows <= int64_t{kFewRows} * sm_count();
  const auto run = [&](auto one, auto four, int lanes) {
    const int64_t per_block = kThreads / lanes * (few ? 1 : 4);
    launch(few ? one : four, dim3(static_cast<unsigned>(args.tokens), blocks_for(a.rows, per_block)),
           kThreads, 0, stream, {}, a);
  };
  if (aligned && d == 32) return run(rope_append_kernel<8, 1, 1>, rope_append_kernel<8, 1, 4>, 8);
  if (aligned && d == 64) return run(rope_append_kernel<16, 1, 1>, rope_append_kernel<16, 1, 4>, 16);
  if (aligned && d == 128) return run(rope_append_kernel<32, 1, 1>, rope_append_kernel<32, 1, 4>, 32);
  if (aligned && d == 256) return run(rope_append_kernel<32, 2, 1>, rope_append_kernel<32, 2, 4>, 32);
  launch(rope_append_general_kernel, dim3(blocks_for(rows, kThreads / 32)), kThreads,
         static_cast<size_t>(kThreads / 32 * d) * sizeof(float), stream, {}, a);
}

}  // namespace atom::cuda
