#pragma once

#include <cstdint>

#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/attention/fast_params.h"
#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/kv_view.h"
#include "kernels/ops.h"
#include "tensor/dtype.h"

/// Attention of a few rows a sequence over the paged cache: split-KV flash decoding (Dao et al. 2023), for
/// caches of int4, int8 and fp16. Fast: fp16 operands, sums in any order.
///
/// A block is one KV head, 8 columns and a part of the keys of one sequence; a column is a row and a query
/// head of the KV head's group. Its 4 warps take turns at stages of kKeys keys, each with a ring of stages of
/// its own in shared memory (cp.async), so no warp ever waits for another until they merge at the end.
///
///   S^T [keys, columns] = K Q^T      A = K by ldmatrix, integers widened by masking, B = Q, kept in
///   registers s = S * (scale_k * c) + minimum_k * (c * sum q)                       c = scale * log2 e p =
///   2^(s - m);  O^T [channels, columns] += V^T (p * scale_v)          A = V^T by ldmatrix.trans out = (O +
///   sum p * minimum_v) / sum p
///
/// Both products have the channels of a cached word in whatever order unpacking leaves them; Q and the output
/// are permuted to match. m only has to be near the maximum: it moves when a score exceeds it by kSlack.
namespace atom::cuda {

struct DecodeParams : FastParams {
  int max_rows;
  int column_tiles;
  /// KV heads * column_tiles.
  int tiles;
  int splits;
  /// sequences * tiles * splits.
  int n_items;
  /// [n_items, 8 columns, 4 + head_dim]: maximum, sum, then, from the fourth on, weighted values.
  float* partials;
};

namespace decode {

using namespace fragments;

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr float kSlack = 4.0f;
constexpr float kLog2e = 1.4426950408889634f;
constexpr float kNoMaximum = -1e30f;
/// Parts of the keys begin at multiples of this.
constexpr int kSplitUnit = 128;

template <KvFormat kFormat, int kDim>
struct Shape {
  static constexpr bool kQuantized = is_quantized(kFormat);
  static constexpr int kRowBytes = kDim * bits_of(kFormat) / 8;
  /// 16-byte chunks of a row.
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kKeys = kQuantized ? 32 : 16;
  static constexpr int kMatrixBytes = kKeys * kRowBytes;
  static constexpr int kStageBytes = 2 * kMatrixBytes + (kQuantized ? kKeys * 8 : 0);
  static constexpr int kStages = kDim == 128 ? 3 : 6;
  static constexpr int kBlocksPerSm = kFormat == KvFormat::int4 ? 4 : 2;
  static constexpr int kRingBytes = kWarps * kStages * kStageBytes;
  /// Stages whose pages one load of a block number by every lane covers.
  static constexpr int kPageStages = 32 / (kKeys / 8);
  static constexpr int kSharedBytes = kRingBytes;
  /// Byte offset of a chunk in its matrix, swizzled so that 8 rows of one chunk lie in different banks.
  __device__ static int offset(int row, int chunk) {
    constexpr int kRowsPerLine = kChunks >= 8 ? 1 : 8 / kChunks;
    constexpr int kMask = (kChunks < 8 ? kChunks : 8) - 1;
    return row * kRowBytes + ((chunk ^ (row / kRowsPerLine & kMask)) * 16);
  }
};

/// Keys in each part of a context.
__device__ inline int split_keys(int context, int splits) {
  const int unit = splits * kSplitUnit;
  return (context + unit - 1) / unit * kSplitUnit;
}

/// Channel of element `j` of half `half` of the B fragment of step `step`, for lane t of four.
template <KvFormat kFormat>
__device__ inline int query_channel(int step, int half, int j, int t) {
  if constexpr (kFormat == KvFormat::int4) return 32 * (step / 2) + 8 * t + 2 * (step % 2) + half + 4 * j;
  if constexpr (kFormat == KvFormat::int8) return 16 * step + 4 * t + 2 * half + j;
  return 16 * step + 8 * half + 2 * t + j;
}

/// Channel of row `row_half` * 8 + g of tile `tile` of the output.
template <KvFormat kFormat>
__device__ inline int output_channel(int tile, int row_half, int g) {
  if constexpr (kFormat == KvFormat::int4) return 32 * (tile / 2) + 4 * g + 2 * (tile % 2) + row_half;
  if constexpr (kFormat == KvFormat::int8) return 16 * tile + 2 * g + row_half;
  return 16 * tile + 8 * row_half + g;
}

/// What a query value is multiplied by: nibbles in the upper half of a byte arrive times 16.
template <KvFormat kFormat>
__device__ constexpr float query_factor(int half) {
  return kFormat == KvFormat::int4 ? (half == 0 ? 4.0f : 0.25f) : 1.0f;
}
template <KvFormat kFormat>
constexpr float kScoreFactor = kFormat == KvFormat::int4 ? 0x1p22f
                                                         : (kFormat == KvFormat::int8 ? 0x1p24f : 1.0f);
template <KvFormat kFormat>
__device__ constexpr float output_factor(int row_half) {
  if (kFormat == KvFormat::f16) return 1.0f;
  return kFormat == KvFormat::int4 && row_half == 1 ? 0x1p20f : 0x1p24f;
}

/// A column tile of one KV head of one sequence, and a part of its keys.
struct Item {
  int64_t first_row;
  const int32_t* blocks;
  int n_rows;
  int context;
  int kv_head;
  int first_column;
  int begin;
  int end;
  /// Stages of this warp.
  int n_stages;
};

/// Work of index `index`; empty (end <= begin) where the sequence is for another kernel, or too short.
template <int kKeys>
__device__ inline Item item_at(const DecodeParams& p, int index, int warp) {
  const int split = index % p.splits;
  const int tile = index / p.splits % p.tiles;
  const SequenceSpan& sequence = p.sequences[index / p.splits / p.tiles];
  Item item;
  item.first_row = sequence.first_row;
  item.blocks = sequence.blocks;
  item.n_rows = static_cast<int>(sequence.n_rows);
  item.context = static_cast<int>(sequence.context);
  item.kv_head = tile / p.column_tiles;
  item.first_column = tile % p.column_tiles * kDecodeColumns;
  const int per_split = split_keys(item.context, p.splits);
  item.begin = split * per_split;
  item.end = min(item.begin + per_split, item.context);
  if (item.n_rows > p.max_rows || item.first_column >= item.n_rows * p.group) item.end = item.begin;
  const int n_all = (item.end - item.begin + kKeys - 1) / kKeys;
  item.n_stages = max(0, (n_all - warp + kWarps - 1) / kWarps);
  return item;
}

template <KvFormat kFormat, int kDim>
__global__ void __launch_bounds__(kThreads, (Shape<kFormat, kDim>::kBlocksPerSm))
    attend(const DecodeParams p) {
  using S = Shape<kFormat, kDim>;
  constexpr int kSteps = kDim / 16;
  constexpr int kKeyTiles = S::kKeys / 16;
  constexpr int kGroups = S::kKeys / 8;
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int free_slots[kWarps];
  wait_for_dependencies();
  launch_dependents();

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const Item item = item_at<S::kKeys>(p, static_cast<int>(blockIdx.x), warp);
  if (item.end <= item.begin) return;
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
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) issue();
  int slot = 0;

  // Queries: column g of this lane, in the order of the widened keys.
  uint32_t queries[kSteps][2];
  const float c = p.scale * kLog2e;
  float sum_q[2];
  {
    const bool valid = g < n_columns;
    const int column = item.first_column + g;
    const int64_t at = (item.first_row + (valid ? column / p.group : 0)) * p.q_stride +
                       (item.kv_head * p.group + (valid ? column % p.group : 0)) * kDim;
    float sum = 0.0f;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float x0 = load_float(p.q, p.q_dtype, at + query_channel<kFormat>(step, half, 0, t));
        const float x1 = load_float(p.q, p.q_dtype, at + query_channel<kFormat>(step, half, 1, t));
        const float factor = valid ? query_factor<kFormat>(half) : 0.0f;
        queries[step][half] = pack(x0 * factor, x1 * factor);
        const float2 rounded = unpack(queries[step][half]);
        sum += (rounded.x + rounded.y) * (1.0f / query_factor<kFormat>(half));
      }
    }
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

  // Merge the warps. Each has the slot of its ring that it will fill next: [8 columns][kDim] weighted
  // values, rotated by 8 a column against bank conflicts, then [8][2] maximum and sum.
#pragma unroll
  for (int x = 0; x < 2; ++x) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], offset);
      offsets[x] += __shfl_xor_sync(0xFFFFFFFFu, offsets[x], offset);
    }
  }
  static_assert(kDecodeColumns * (kDim + 2) * 4 <= S::kStageBytes);
  const int free_slot = slot_ahead;
  auto* own = reinterpret_cast<float*>(own_ring + free_slot * S::kStageBytes);
  __syncwarp();
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int column = 2 * t + x;
    if (column >= n_columns) continue;
#pragma unroll
    for (int tile = 0; tile < kSteps; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int channel = output_channel<kFormat>(tile, half, g);
        own[column * kDim + (channel + 8 * column) % kDim] =
            fmaf(output[tile][2 * half + x], output_factor<kFormat>(half), offsets[x]);
      }
    }
    if (g == 0) {
      own[kDecodeColumns * kDim + column * 2] = maximum[x];
      own[kDecodeColumns * kDim + column * 2 + 1] = sums[x];
    }
  }
  if (lane == 0) free_slots[warp] = free_slot;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n_columns * kDim; i += kThreads) {
    const int column = i / kDim;
    const int channel = i % kDim;
    const float* parts[kWarps];
    float top = kNoMaximum;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      parts[w] = reinterpret_cast<const float*>(shared + (w * S::kStages + free_slots[w]) * S::kStageBytes);
      top = fmaxf(top, parts[w][kDecodeColumns * kDim + column * 2]);
    }
    float sum = 0.0f;
    float weighted = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2_fast(parts[w][kDecodeColumns * kDim + column * 2] - top);
      sum = fmaf(parts[w][kDecodeColumns * kDim + column * 2 + 1], factor, sum);
      weighted = fmaf(parts[w][column * kDim + (channel + 8 * column) % kDim], factor, weighted);
    }
    if (p.splits == 1) {
      const int64_t row = item.first_row + (item.first_column + column) / p.group;
      const int64_t head = item.kv_head * p.group + (item.first_column + column) % p.group;
      store_float(p.out, p.out_dtype, row * p.out_stride + head * kDim + channel, weighted / sum);
    } else {
      float* partial = p.partials + (static_cast<int64_t>(blockIdx.x) * kDecodeColumns + column) * (kDim + 4);
      if (channel == 0) {
        partial[0] = top;
        partial[1] = sum;
      }
      partial[4 + channel] = weighted;
    }
  }
}

/// Merges the parts of a column. Grid [8 columns, KV heads * column tiles, sequences]; kMergeGroups threads a
/// channel.
constexpr int kMergeGroups = 4;
template <int kDim>
__global__ void __launch_bounds__(kDim* kMergeGroups) merge_splits(const DecodeParams p) {
  __shared__ float sums[kMergeGroups];
  __shared__ float weighted_sums[kMergeGroups][kDim];
  wait_for_dependencies();
  launch_dependents();
  const SequenceSpan sequence = p.sequences[blockIdx.z];
  const int kv_head = static_cast<int>(blockIdx.y) / p.column_tiles;
  const int column =
      static_cast<int>(blockIdx.y) % p.column_tiles * kDecodeColumns + static_cast<int>(blockIdx.x);
  if (sequence.n_rows > p.max_rows || column >= sequence.n_rows * p.group) return;
  const int context = static_cast<int>(sequence.context);
  const int per_split = split_keys(context, p.splits);
  const int n = (context + per_split - 1) / per_split;
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * p.tiles + blockIdx.y;
  const float* partials = p.partials + (tile * p.splits * kDecodeColumns + blockIdx.x) * (kDim + 4);
  constexpr int64_t kStride = kDecodeColumns * (kDim + 4);
  const int channel = static_cast<int>(threadIdx.x) % kDim;
  const int group = static_cast<int>(threadIdx.x) / kDim;
  float top = kNoMaximum;
  for (int s = static_cast<int>(threadIdx.x) % 32; s < n; s += 32) top = fmaxf(top, partials[s * kStride]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, offset));
  float sum = 0.0f;
  float weighted = 0.0f;
#pragma unroll 8
  for (int s = group; s < n; s += kMergeGroups) {
    const float factor = exp2_fast(partials[s * kStride] - top);
    sum = fmaf(partials[s * kStride + 1], factor, sum);
    weighted = fmaf(partials[s * kStride + 4 + channel], factor, weighted);
  }
  if (channel == 0) sums[group] = sum;
  weighted_sums[group][channel] = weighted;
  __syncthreads();
  if (group != 0) return;
#pragma unroll
  for (int other = 1; other < kMergeGroups; ++other) {
    sum += sums[other];
    weighted += weighted_sums[other][channel];
  }
  const int64_t row = sequence.first_row + column / p.group;
  const int64_t head = kv_head * p.group + column % p.group;
  store_float(p.out, p.out_dtype, row * p.out_stride + head * kDim + channel, weighted / sum);
}

}  // namespace decode
}  // namespace atom::cuda
