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

/// Neighbouring heads of q, k or v of a token: where their rows come from and go to. Chunks of kRows heads
/// are counted over q, then k, then v.
template <int kRows>
struct Rows {
  enum class Kind { query, key, value } kind;
  /// Of the chunk; none beyond the last one.
  int count;
  const float* from;
  int dim;
  /// Index of the first row in the cache, and from row to row; meaningless where the token is not stored.
  int64_t cache_row;
  int64_t cache_step;

  __host__ __device__ static int64_t chunks(int64_t heads) { return (heads + kRows - 1) / kRows; }

  __device__ Rows(const RopeAppendArgs& args, int64_t token, int chunk, const Place& place)
      : dim(static_cast<int>(args.cache.head_dim)), cache_step(args.cache.block_size) {
    const int n_heads = static_cast<int>(args.n_heads), n_kv_heads = static_cast<int>(args.cache.n_kv_heads);
    const int q_chunks = static_cast<int>(chunks(n_heads)), kv_chunks = static_cast<int>(chunks(n_kv_heads));
    kind = chunk < q_chunks ? Kind::query : chunk < q_chunks + kv_chunks ? Kind::key : Kind::value;
    const float* data = kind == Kind::query ? args.q : kind == Kind::key ? args.k : args.v;
    const int64_t stride = kind == Kind::query ? args.q_stride
                           : kind == Kind::key ? args.k_stride
                                               : args.v_stride;
    const int of_kind = chunk - (kind == Kind::query ? 0
                                 : kind == Kind::key ? q_chunks
                                                     : q_chunks + kv_chunks);
    const int head = of_kind * kRows;
    count = min(kRows, (kind == Kind::query ? n_heads : n_kv_heads) - head);
    from = data + token * stride + (count > 0 ? head * dim : 0);
    cache_row = (place.page * n_kv_heads + head) * args.cache.block_size + place.in_page;
  }
  /// Row i, or the first one where there are not so many.
  __device__ const float* row(int i) const { return from + (i < count ? i * dim : 0); }
  __device__ uint8_t* cache(const KvLayerView& view, int i, int64_t row_bytes) const {
    std::byte* base = kind == Kind::key ? view.keys : view.values;
    return reinterpret_cast<uint8_t*>(base) + (cache_row + i * cache_step) * row_bytes;
  }
  __device__ uint32_t* params(const KvLayerView& view, int i) const {
    return reinterpret_cast<uint32_t*>(kind == Kind::key ? view.key_params : view.value_params) + cache_row +
           i * cache_step;
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

/// kLanes lanes take a chunk of kRows heads of token blockIdx.x, and load all of them first.
template <int kLanes, int kPairs, int kRows>
__global__ void __launch_bounds__(kThreads) rope_append_kernel(const Rope a) {
  using RowPart = Part<kLanes, kPairs>;
  using Kind = typename Rows<kRows>::Kind;
  const RopeAppendArgs& args = a.args;
  launch_dependents();
  const int64_t token = blockIdx.x;
  const Place place(args, token);
  const Rows<kRows> rows(args, token, static_cast<int>((blockIdx.y * kThreads + threadIdx.x) / kLanes),
                         place);
  const int64_t angle = args.positions[token] * int64_t{RowPart::kHalf};
  float2 cosine[kPairs], sine[kPairs];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    cosine[p] = *reinterpret_cast<const float2*>(args.cos + angle + RowPart::place(p));
    sine[p] = *reinterpret_cast<const float2*>(args.sin + angle + RowPart::place(p));
  }
  wait_for_dependencies();

  // Whole warps take part in shuffles, lanes without a row too; what they have is not stored.
  RowPart parts[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) parts[i].load(rows.row(i));
  const bool turns = rows.kind != Kind::value;
  if (__any_sync(~0u, turns)) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      RowPart turned = parts[i];
      turned.turn(cosine, sine);
      if (args.rotate) turned.hadamard(a.norm);
      if (turns) parts[i] = turned;
    }
  }
  if (rows.kind == Kind::query) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i < rows.count) parts[i].store(const_cast<float*>(rows.row(i)));
    }
  }
  if (__all_sync(~0u, rows.kind == Kind::query)) return;

  const KvFormat format = args.cache.format;
  const float levels = format == KvFormat::int4 ? 15.0f : 255.0f;
  const bool stores = rows.kind != Kind::query && place.is_stored;
  // The divisions of all rows at once: lane i % kRows of a row's lanes has those of the i-th.
  numerics::KvParams params{};
  if (is_quantized(format)) {
    Range range{};
    const int mine = RowPart::lane() % kRows;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Range of_row = parts[i].range();
      if (mine == i) range = of_row;
    }
    params = numerics::kv_params(range.low, range.high, levels);
    if (stores && RowPart::lane() < min(kRows, rows.count)) {
      *rows.params(args.cache, mine) = pack_params(params);
    }
  }
  const float inverse = numerics::inverse_scale(params.scale);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float minimum_of_row = __shfl_sync(~0u, params.minimum, i, kLanes);
    const float inverse_of_row = __shfl_sync(~0u, inverse, i, kLanes);
    if (stores && i < rows.count) {
      parts[i].store_cache(format, minimum_of_row, inverse_of_row, levels,
                           rows.cache(args.cache, i, int64_t{RowPart::kDim} * bits_of(format) / 8));
    }
  }
}

__global__ void __launch_bounds__(kThreads) rope_append_general_kernel(const Rope a) {
  extern __shared__ float shared[];
  using Kind = Rows<1>::Kind;
  launch_dependents();
  wait_for_dependencies();
  const RopeAppendArgs& args = a.args;
  const KvLayerView& cache = args.cache;
  const int dim = static_cast<int>(cache.head_dim), half = dim / 2;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t token = blockIdx.x;
  const Place place(args, token);
  const Rows<1> row(args, token, static_cast<int>(blockIdx.y) * (kThreads / 32) + warp, place);
  if (row.count <= 0) return;
  float* x = shared + warp * dim;
  for (int i = lane; i < dim; i += 32) x[i] = row.from[i];
  __syncwarp();
  if (row.kind != Kind::value) {
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
  if (row.kind == Kind::query) {
    for (int i = lane; i < dim; i += 32) const_cast<float*>(row.from)[i] = x[i];
    return;
  }
  if (!place.is_stored) return;
  uint8_t* out = row.cache(cache, 0, cache.head_dim * bits_of(cache.format) / 8);
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
  if (lane == 0) *row.params(cache, 0) = pack_params(params);
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
  const Rope a{args, static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)))};
  const bool aligned = args.q_stride % 2 == 0 && args.k_stride % 2 == 0 && args.v_stride % 2 == 0 &&
                       is_aligned(args.q, 0, DType::f32) && is_aligned(args.k, 0, DType::f32) &&
                       is_aligned(args.v, 0, DType::f32) && is_aligned(args.cos, 0, DType::f32) &&
                       is_aligned(args.sin, 0, DType::f32);
  if (args.tokens == 0) return;
  const auto tokens = static_cast<unsigned>(args.tokens);
  const auto run = [&]<int lanes, int pairs, int rows>() {
    const int64_t chunks = Rows<rows>::chunks(args.n_heads) + 2 * Rows<rows>::chunks(args.cache.n_kv_heads);
    launch(rope_append_kernel<lanes, pairs, rows>, dim3(tokens, blocks_for(chunks, kThreads / lanes)),
           kThreads, 0, stream, {}, a);
  };
  const int64_t heads = args.n_heads + 2 * args.cache.n_kv_heads;
  // Few tokens: a row a warp, for the shortest time. Many: four, for more loads in flight.
  const bool few = args.tokens * heads <= int64_t{kFewRows} * sm_count();
  const auto run_fast = [&]<int lanes, int pairs>() {
    few ? run.template operator()<lanes, pairs, 1>() : run.template operator()<lanes, pairs, 4>();
  };
  if (aligned && d == 32) return run_fast.template operator()<8, 1>();
  if (aligned && d == 64) return run_fast.template operator()<16, 1>();
  if (aligned && d == 128) return run_fast.template operator()<32, 1>();
  if (aligned && d == 256) return run_fast.template operator()<32, 2>();
  launch(rope_append_general_kernel, dim3(tokens, blocks_for(heads, kThreads / 32)), kThreads,
         static_cast<size_t>(kThreads / 32 * d) * sizeof(float), stream, {}, a);
}

}  // namespace atom::cuda
