#pragma once

#include <cstdint>

#include "kernels/cuda/attention/decode_items.cuh"
#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/kv_view.h"

/// Attention of a few rows a sequence over the paged cache: split-KV flash decoding (Dao et al. 2023), for
/// caches of int4, int8 and fp16. Fast: fp16 operands, sums in any order.
///
/// A block is one KV head, 8 columns and a part of the keys of one sequence; a column is a row and a query
/// head of the KV head's group. Its warps take turns at stages of kKeys keys, each with a ring of stages of
/// its own in shared memory (cp.async), so no warp ever waits for another until they merge at the end. Of the
/// blocks that have parts of one sequence's keys the last ones merge them, a column each, in an order that
/// depends on their number alone. They need no fence and no counter to know that a part is there: each of its
/// words tells (is_nothing()).
///
/// A block copies its first keys while the kernel ahead still runs: only a sequence's own rows are that one's
/// work (attention.h). In a row of launches memory is busy while blocks merge, end, and begin.
///
///   S^T [keys, columns] = K Q^T      A = K by ldmatrix, integers widened by masking, B = Q, in registers
///   s = S * (scale_k * c) + minimum_k * (c * sum q)          c = scale * log2 e
///   p = 2^(s - m);  O^T [channels, columns] += V^T (p * scale_v)          A = V^T by ldmatrix.trans
///   out = (O + sum p * minimum_v) / sum p
///
/// Both products have the channels of a cached word in whatever order unpacking leaves them; Q and the output
/// are permuted to match. m only has to be near the maximum: it moves when a score exceeds it by kSlack.
namespace atom::cuda::decode {

using namespace fragments;

constexpr float kSlack = 4.0f;
constexpr float kLog2e = 1.4426950408889634f;
constexpr float kNoMaximum = -1e30f;

__device__ inline void add(float4& sum, float factor, float4 x) {
  sum = {fmaf(x.x, factor, sum.x), fmaf(x.y, factor, sum.y), fmaf(x.z, factor, sum.z),
         fmaf(x.w, factor, sum.w)};
}

/// What each word of a part is before it is written: no result of arithmetic, whose NaN is 0x7FFFFFFF.
__device__ inline bool is_nothing(float x) {
  return __float_as_uint(x) == 0xFFFFFFFF;
}
__device__ inline bool is_written(float2 x) {
  return !is_nothing(x.x) && !is_nothing(x.y);
}
__device__ inline bool is_written(float4 x) {
  return !is_nothing(x.x) && !is_nothing(x.y) && !is_nothing(x.z) && !is_nothing(x.w);
}

/// Where a part has a column: maximum and sum, then, from the fourth float on, weighted values, four of them
/// from `channel` on.
template <int kDim>
struct PartPlace {
  static constexpr int kColumnFloats = 4 + kDim;
  float2* head;
  float4* values;

  __device__ PartPlace(float* part, int column, int channel)
      : head(reinterpret_cast<float2*>(part + column * kColumnFloats)),
        values(reinterpret_cast<float4*>(part + column * kColumnFloats + 4 + channel)) {}
};

/// Waits for the turn of this block, if it is among the first ones of its SM: blocks go to SMs in the order
/// of their numbers.
template <int kBlocksPerSm>
__device__ inline void begin_in_turn(const DecodeParams& p) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int turn = static_cast<int>(block) / p.sm_count;
  if (turn >= kBlocksPerSm) return;
  const int64_t begin = clock64();
  while (clock64() - begin < int64_t{turn} * p.stagger) __nanosleep(100);
}

template <KvFormat kFormat, int kDim, int kWarps>
__global__ void __launch_bounds__(kWarps * 32, (Shape<kFormat, kDim, kWarps>::kBlocksPerSm))
    attend(const DecodeParams p) {
  using S = Shape<kFormat, kDim, kWarps>;
  using Part = PartPlace<kDim>;
  constexpr int kSteps = kDim / 16;
  constexpr int kKeyTiles = S::kKeys / 16;
  constexpr int kGroups = S::kKeys / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  /// Maximum and sum of a warp's keys.
  __shared__ float2 heads[S::kThreads];

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const Item item = own_item<S::kKeys, kWarps>(p, warp);
  if (item.end <= item.begin) {
    // What follows this kernel relies on the kernel ahead too.
    wait_for_dependencies();
    return;
  }
  const int n_columns = min(item.n_rows * p.group - item.first_column, kDecodeColumns);
  unsigned char* const own_ring = shared + warp * S::kStages * S::kStageBytes;
  const uint32_t ring = shared_address(own_ring);

  // Lane l of `groups` has the place of 8 keys in the cache: group l % kGroups of stage l / kGroups of the
  // current kPageStages.
  const auto load_groups = [&](int stage) {
    const int key = item.begin + ((stage + lane / kGroups) * kWarps + warp) * S::kKeys + lane % kGroups * 8;
    if (key >= item.end) return 0u;
    const auto page = static_cast<uint32_t>(item.blocks[key >> p.block_shift]);
    const uint32_t in_page = (key & ((1 << p.block_shift) - 1)) / 8;
    return ((page * static_cast<uint32_t>(p.cache.n_kv_heads) + item.kv_head) << (p.block_shift - 3)) +
           in_page;
  };
  uint32_t groups = load_groups(0);
  uint32_t next_groups = load_groups(S::kPageStages);

  // What this lane copies: chunk lane % kChunks of every kRowsPerCopy-th row.
  constexpr int kRowsPerCopy = 32 / S::kChunks;
  const int copy_row = lane / S::kChunks;
  const std::byte* const from_keys = p.cache.keys + copy_row % 8 * S::kRowBytes + lane % S::kChunks * 16;
  const std::byte* const from_values = p.cache.values + copy_row % 8 * S::kRowBytes + lane % S::kChunks * 16;
  const auto* const from_key_params = reinterpret_cast<const std::byte*>(p.cache.key_params) + lane % 8 * 4;
  const auto* const from_value_params =
      reinterpret_cast<const std::byte*>(p.cache.value_params) + lane % 8 * 4;
  int ahead = 0;
  int ahead_key = item.begin + warp * S::kKeys;
  int slot_ahead = 0;
  const auto issue = [&]() {
    if (ahead < item.n_stages) {
      const int first_group = ahead % S::kPageStages * kGroups;
      if (ahead > 0 && first_group == 0) {
        groups = next_groups;
        next_groups = load_groups(ahead + S::kPageStages);
      }
      const uint32_t stage = ring + slot_ahead * S::kStageBytes;
      const int n_valid = item.end - ahead_key;
#pragma unroll
      for (int k = 0; k < S::kKeys / kRowsPerCopy; ++k) {
        // Rows k * kRowsPerCopy + copy_row; their swizzle repeats every 8 rows.
        const int group = k * kRowsPerCopy / 8 + (kRowsPerCopy > 8 ? copy_row / 8 : 0);
        const uint32_t place = __shfl_sync(0xFFFFFFFFu, groups, first_group + group);
        const int row = k * kRowsPerCopy + copy_row;
        const uint64_t at = static_cast<uint64_t>(place) * (8 * S::kRowBytes) +
                            (kRowsPerCopy < 8 ? k * kRowsPerCopy % 8 * S::kRowBytes : 0);
        const uint32_t to = stage + S::offset(row, lane % S::kChunks);
        copy_16(to, from_keys + at, row < n_valid);
        copy_16(to + S::kMatrixBytes, from_values + at, row < n_valid);
      }
      if constexpr (S::kQuantized) {
        const uint64_t at =
            static_cast<uint64_t>(__shfl_sync(0xFFFFFFFFu, groups, first_group + lane / 8)) * 32;
        const uint32_t to = stage + 2 * S::kMatrixBytes + lane * 4;
        copy_4(to, from_key_params + at, lane < n_valid);
        copy_4(to + S::kKeys * 4, from_value_params + at, lane < n_valid);
      }
      ++ahead;
      ahead_key += kWarps * S::kKeys;
    }
    slot_ahead = slot_ahead + 1 == S::kStages ? 0 : slot_ahead + 1;
    async_commit();
  };

  // Stages without a row of the batch are older than the kernel ahead, as sequences and tables are. Only some
  // of them are copied this early: queries come behind them, and blocks of a kernel ahead that merge parts
  // meanwhile are slowed down.
  const int n_old = item.context - item.n_rows;
  const int n_early = min(S::kStages - 1, max(1, item.n_stages / (p.splits == 1 ? 2 : 4)));
  int n_issued = 0;
  for (; n_issued < n_early && ahead_key + S::kKeys <= n_old; ++n_issued) issue();
  wait_for_dependencies();
  launch_dependents();
  if (p.stagger > 0) begin_in_turn<S::kBlocksPerSm>(p);

  // Queries come before further keys: column g of this lane, a part of its channels.
  constexpr int kRun = query_run(kFormat);
  constexpr int kRuns = kDim / (4 * kRun);
  uint32_t raw_queries[kRuns * kRun];
  const bool has_column = g < n_columns;
  with_element(p.q_dtype, [&]<class T>() {
    const int column = item.first_column + (has_column ? g : 0);
    const T* const from = static_cast<const T*>(p.q) + (item.first_row + column / p.group) * p.q_stride +
                          (item.kv_head * p.group + column % p.group) * kDim + t * kRun;
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
      constexpr int kWords = Run<T, kRun>::kWords;
      load_words<kWords>(from + i * 4 * kRun, raw_queries + i * kWords);
    }
  });

  for (; n_issued < S::kStages - 1; ++n_issued) issue();
  int slot = 0;

  // In the order of the widened keys.
  uint32_t queries[kSteps][2];
  const float c = p.scale * kLog2e;
  float sum_q[2];
  {
    float sum = 0.0f;
    with_element(p.q_dtype, [&]<class T>() {
      const auto& runs = reinterpret_cast<const Run<T, kRun>(&)[kRuns]>(raw_queries);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const QueryPlace place = query_place<kFormat>(step, half);
          const float factor = has_column ? query_factor<kFormat>(half) : 0.0f;
          queries[step][half] = pack(runs[place.run][place.first] * factor,
                                     runs[place.run][place.first + place.stride] * factor);
          const float2 rounded = unpack(queries[step][half]);
          sum += (rounded.x + rounded.y) * (1.0f / query_factor<kFormat>(half));
        }
      }
    });
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    sum_q[0] = c * __shfl_sync(0xFFFFFFFFu, sum, 8 * t);
    sum_q[1] = c * __shfl_sync(0xFFFFFFFFu, sum, 8 * t + 4);
  }

  // Of columns 2t and 2t + 1: keys they see, maximum, and this lane's part of the sums.
  int limits[2];
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int row = (item.first_column + min(2 * t + x, n_columns - 1)) / p.group;
    limits[x] = min(item.end, item.context - item.n_rows + row + 1);
  }
  const int full_limit = min(item.end, item.context - item.n_rows + item.first_column / p.group + 1);
  float maximum[2] = {kNoMaximum, kNoMaximum};
  float sums[2] = {0.0f, 0.0f};
  float offsets[2] = {0.0f, 0.0f};
  float output[kSteps][4] = {};

  // Row and chunk that this lane addresses for ldmatrix.
  const int matrix_row = lane % 16;
  const int matrix_chunk = lane / 16;
  for (int i = 0; i < item.n_stages; ++i) {
    async_wait<S::kStages - 2>();
    __syncwarp();
    issue();
    const uint32_t stage = ring + slot * S::kStageBytes;
    const int first_key = item.begin + (i * kWarps + warp) * S::kKeys;

    float scores[kKeyTiles][4] = {};
#pragma unroll
    for (int chunk = 0; chunk < S::kChunks; chunk += 2) {
#pragma unroll
      for (int tile = 0; tile < kKeyTiles; ++tile) {
        uint32_t w[4];
        load_matrices(stage + S::offset(tile * 16 + matrix_row, chunk + matrix_chunk), w);
        if constexpr (kFormat == KvFormat::f16) {
          multiply(scores[tile], w[0], w[1], w[2], w[3], queries[chunk / 2][0], queries[chunk / 2][1]);
        } else {
#pragma unroll
          for (int x = 0; x < 2; ++x) {
            if constexpr (kFormat == KvFormat::int8) {
              const uint32_t low = w[2 * x];
              const uint32_t high = w[2 * x + 1];
              multiply(scores[tile], __byte_perm(low, 0, 0x4140), __byte_perm(high, 0, 0x4140),
                       __byte_perm(low, 0, 0x4342), __byte_perm(high, 0, 0x4342), queries[chunk + x][0],
                       queries[chunk + x][1]);
            } else {
              uint32_t low[4];
              uint32_t high[4];
              nibbles(w[2 * x], low);
              nibbles(w[2 * x + 1], high);
              const int step = 2 * (chunk + x);
              multiply(scores[tile], low[0], high[0], low[1], high[1], queries[step][0], queries[step][1]);
              multiply(scores[tile], low[2], high[2], low[3], high[3], queries[step + 1][0],
                       queries[step + 1][1]);
            }
          }
        }
      }
    }

    // Element y of a tile: key g + 8 * (y / 2), column 2t + y % 2.
    float value_scales[kKeyTiles][2];
    float value_minima[kKeyTiles][2];
    float largest[2] = {kNoMaximum, kNoMaximum};
    const unsigned char* params = own_ring + slot * S::kStageBytes + 2 * S::kMatrixBytes;
    const bool masked = first_key + S::kKeys > full_limit;
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = tile * 16 + half * 8 + g;
        float factor = c;
        float minimum = 0.0f;
        value_scales[tile][half] = 1.0f;
        value_minima[tile][half] = 0.0f;
        if constexpr (S::kQuantized) {
          const float2 k = __half22float2(*reinterpret_cast<const __half2*>(params + key * 4));
          const float2 v = __half22float2(*reinterpret_cast<const __half2*>(params + (S::kKeys + key) * 4));
          factor = k.x * (c * kScoreFactor<kFormat>);
          minimum = k.y;
          value_scales[tile][half] = v.x;
          value_minima[tile][half] = v.y;
        }
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          float& s = scores[tile][2 * half + x];
          s = S::kQuantized ? fmaf(s, factor, minimum * sum_q[x]) : s * factor;
          if (masked && first_key + key >= limits[x]) s = -INFINITY;
          largest[x] = fmaxf(largest[x], s);
        }
      }
    }
    const bool grows = largest[0] > maximum[0] + kSlack || largest[1] > maximum[1] + kSlack;
    if (__any_sync(0xFFFFFFFFu, grows)) {
#pragma unroll
      for (int x = 0; x < 2; ++x) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) {
          largest[x] = fmaxf(largest[x], __shfl_xor_sync(0xFFFFFFFFu, largest[x], offset));
        }
        const float moved = fmaxf(largest[x], maximum[x]);
        const float correction = exp2_fast(maximum[x] - moved);
        maximum[x] = moved;
        sums[x] *= correction;
        offsets[x] *= correction;
#pragma unroll
        for (int tile = 0; tile < kSteps; ++tile) {
          output[tile][x] *= correction;
          output[tile][2 + x] *= correction;
        }
      }
    }
    uint32_t weights[kKeyTiles][2];
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float e[2];
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          e[x] = exp2_fast(scores[tile][2 * half + x] - maximum[x]);
          sums[x] += e[x];
          if constexpr (S::kQuantized) {
            offsets[x] = fmaf(e[x], value_minima[tile][half], offsets[x]);
            e[x] *= value_scales[tile][half];
          }
        }
        weights[tile][half] = transpose(pack(e[0], e[1]));
      }
    }

    const uint32_t values = stage + S::kMatrixBytes;
#pragma unroll
    for (int tile = 0; tile < kKeyTiles; ++tile) {
#pragma unroll
      for (int chunk = 0; chunk < S::kChunks; chunk += 2) {
        uint32_t w[4];
        load_matrices_transposed(values + S::offset(tile * 16 + matrix_row, chunk + matrix_chunk), w);
        if constexpr (kFormat == KvFormat::f16) {
          multiply(output[chunk / 2], w[0], w[2], w[1], w[3], weights[tile][0], weights[tile][1]);
        } else {
#pragma unroll
          for (int x = 0; x < 2; ++x) {
            if constexpr (kFormat == KvFormat::int8) {
              const uint32_t low = w[2 * x];
              const uint32_t high = w[2 * x + 1];
              multiply(output[chunk + x], __byte_perm(low, 0, 0x4240), __byte_perm(low, 0, 0x4341),
                       __byte_perm(high, 0, 0x4240), __byte_perm(high, 0, 0x4341), weights[tile][0],
                       weights[tile][1]);
            } else {
              uint32_t low[4];
              uint32_t high[4];
              nibbles(w[2 * x], low);
              nibbles(w[2 * x + 1], high);
              const int out_tile = 2 * (chunk + x);
              multiply(output[out_tile], low[0], low[1], high[0], high[1], weights[tile][0],
                       weights[tile][1]);
              multiply(output[out_tile + 1], low[2], low[3], high[2], high[3], weights[tile][0],
                       weights[tile][1]);
            }
          }
        }
      }
    }
    slot = slot + 1 == S::kStages ? 0 : slot + 1;
  }

  // Merge the warps: [8 columns][kDim] weighted values each, in its ring, a column rotated by 4 for each
  // before it against bank conflicts.
#pragma unroll
  for (int x = 0; x < 2; ++x) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], offset);
      offsets[x] += __shfl_xor_sync(0xFFFFFFFFu, offsets[x], offset);
    }
    if (g == 0) heads[warp * kDecodeColumns + 2 * t + x] = {maximum[x], sums[x]};
  }
  __syncwarp();
  auto* const own = reinterpret_cast<float*>(own_ring);
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int column = 2 * t + x;
    if (column >= n_columns) continue;
    constexpr int kTogether = output_run(kFormat);
#pragma unroll
    for (int i = 0; i < 2 * kSteps; i += kTogether) {
      float run[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int half = (i + k) % 2;
        run[k] = fmaf(output[(i + k) / 2][2 * half + x], output_factor<kFormat>(half), offsets[x]);
      }
      store_run(own + column * kDim + (output_channel<kFormat>(i, g) + 4 * column) % kDim, run);
    }
  }
  __syncthreads();
  constexpr int kFours = kDim / 4;
  constexpr int kStride = kDecodeColumns * Part::kColumnFloats;
  static_assert(kStride <= kAttentionPartFloats);
  const int n_parts = n_splits(item.context, p.splits);
  const unsigned tile_index = blockIdx.z * gridDim.y + blockIdx.y;
  float* const parts = p.parts + static_cast<int64_t>(tile_index) * p.splits * kStride;
  const auto store = [&](int column, int channel, float4 x, float sum) {
    const float inverse = 1.0f / sum;
    const int64_t row = item.first_row + (item.first_column + column) / p.group;
    const int64_t head = item.kv_head * p.group + (item.first_column + column) % p.group;
    with_element(p.out_dtype, [&]<class T>() {
      store_run(static_cast<T*>(p.out) + row * p.out_stride + head * kDim + channel,
                {x.x * inverse, x.y * inverse, x.z * inverse, x.w * inverse});
    });
  };
  for (int i = static_cast<int>(threadIdx.x); i < n_columns * kFours; i += S::kThreads) {
    const int column = i / kFours;
    const int channel = i % kFours * 4;
    float top = kNoMaximum;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, heads[w * kDecodeColumns + column].x);
    float sum = 0.0f;
    float4 weighted = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 head = heads[w * kDecodeColumns + column];
      const float factor = exp2_fast(head.x - top);
      const auto* ring_of_warp = reinterpret_cast<const float*>(shared + w * S::kStages * S::kStageBytes);
      sum = fmaf(head.y, factor, sum);
      add(weighted, factor,
          *reinterpret_cast<const float4*>(ring_of_warp + column * kDim + (channel + 4 * column) % kDim));
    }
    if (n_parts == 1) {
      store(column, channel, weighted, sum);
    } else {
      const Part part(parts + blockIdx.x * kStride, column, channel);
      if (channel == 0) ptx::store_relaxed(part.head, {top, sum});
      ptx::store_relaxed(part.values, weighted);
    }
  }
  if (n_parts == 1) return;

  // The last blocks of a sequence merge, a column each. They wait for others, later ones too; CUDA does not
  // promise that blocks begin in the order of their numbers, but GPUs do that: only the last tile that has
  // begun can lack parts then, so that fewer blocks than a tile has columns wait for one that has not. Teams
  // of threads divide the parts, kBatch of them on their way at once: a part is a trip to L2. What has been
  // read becomes nothing again.
  constexpr int kBatch = 4;
  // Behind what the first two warps have left the merge of warps.
  constexpr int kMergeBytes = kDecodeColumns * kDim * 4, kWarpBytes = S::kStages * S::kStageBytes;
  static_assert(kMergeBytes + S::kThreads * 16 <= kWarpBytes);
  auto* const values_of_teams = reinterpret_cast<float4*>(shared + kMergeBytes);
  auto* const heads_of_teams = reinterpret_cast<float2*>(shared + kWarpBytes + kMergeBytes);
  const float nothing = __uint_as_float(0xFFFFFFFF);
  const int n_teams = min((n_parts + kBatch - 1) / kBatch, S::kThreads / kFours);
  const int team = static_cast<int>(threadIdx.x) / kFours;
  const int channel = static_cast<int>(threadIdx.x) % kFours * 4;
  const int first_part = team < n_teams ? team : n_parts;
  for (int column = n_parts - 1 - static_cast<int>(blockIdx.x); column < n_columns; column += n_parts) {
    float top = kNoMaximum;
    float sum = 0.0f;
    float4 weighted = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int k = first_part; k < n_parts; k += n_teams * kBatch) {
      float2 head[kBatch];
      float4 x[kBatch];
      bool complete;
      do {
        complete = true;
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          head[b] = {kNoMaximum, 0.0f};
          x[b] = {0.0f, 0.0f, 0.0f, 0.0f};
          if (k + b * n_teams < n_parts) {
            const Part part(parts + (k + b * n_teams) * kStride, column, channel);
            head[b] = ptx::load_relaxed(part.head);
            x[b] = ptx::load_relaxed(part.values);
          }
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) complete &= is_written(head[b]) && is_written(x[b]);
      } while (!complete);
      float higher = top;
#pragma unroll
      for (int b = 0; b < kBatch; ++b) higher = fmaxf(higher, head[b].x);
      const float correction = exp2_fast(top - higher);
      top = higher;
      sum *= correction;
      weighted = {weighted.x * correction, weighted.y * correction, weighted.z * correction,
                  weighted.w * correction};
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const float factor = exp2_fast(head[b].x - top);
        sum = fmaf(head[b].y, factor, sum);
        add(weighted, factor, x[b]);
      }
    }
    heads_of_teams[threadIdx.x] = {top, sum};
    values_of_teams[threadIdx.x] = weighted;
    __syncthreads();
    if (team == 0) {
      for (int k = 1; k < n_teams; ++k) top = fmaxf(top, heads_of_teams[threadIdx.x + k * kFours].x);
      sum = 0.0f;
      weighted = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int k = 0; k < n_teams; ++k) {
        const float2 head = heads_of_teams[threadIdx.x + k * kFours];
        const float factor = exp2_fast(head.x - top);
        sum = fmaf(head.y, factor, sum);
        add(weighted, factor, values_of_teams[threadIdx.x + k * kFours]);
      }
      store(column, channel, weighted, sum);
    }
    // Everybody has read these parts.
    for (int k = first_part; k < n_parts; k += n_teams) {
      const Part part(parts + k * kStride, column, channel);
      if (channel == 0) ptx::store_relaxed(part.head, {nothing, nothing});
      ptx::store_relaxed(part.values, {nothing, nothing, nothing, nothing});
    }
    __syncthreads();
  }
}

}  // namespace atom::cuda::decode
