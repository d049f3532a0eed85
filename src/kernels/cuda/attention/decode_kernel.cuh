#pragma once

#include <cstdint>

#include "kernels/cuda/attention/config.h"
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

struct DecodeParams {
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
  int max_rows;
  int column_tiles;
  int splits;
  float scale;
  /// [sequences, KV heads * column_tiles, splits, 8 columns, 2 + head_dim]: maximum, sum, weighted values.
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
__device__ inline int64_t split_keys(int64_t context, int splits) {
  const int64_t unit = static_cast<int64_t>(splits) * kSplitUnit;
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

template <KvFormat kFormat, int kDim>
__global__ void __launch_bounds__(kThreads, (Shape<kFormat, kDim>::kBlocksPerSm))
    attend(const DecodeParams p) {
  using S = Shape<kFormat, kDim>;
  constexpr int kSteps = kDim / 16;
  constexpr int kKeyTiles = S::kKeys / 16;
  extern __shared__ __align__(128) unsigned char shared[];
  wait_for_dependencies();
  launch_dependents();

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const SequenceSpan sequence = p.sequences[blockIdx.z];
  const int kv_head = static_cast<int>(blockIdx.y) / p.column_tiles;
  const int first_column = static_cast<int>(blockIdx.y) % p.column_tiles * kDecodeColumns;
  if (sequence.n_rows > p.max_rows || first_column >= sequence.n_rows * p.group) return;
  const int n_columns =
      static_cast<int>(min(sequence.n_rows * p.group - first_column, int64_t{kDecodeColumns}));
  const int64_t per_split = split_keys(sequence.context, p.splits);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * per_split;
  const int64_t end = min(begin + per_split, sequence.context);
  if (begin >= end) return;

  // Stage i of this warp: keys from begin + (i * kWarps + warp) * kKeys on.
  const int n_all = static_cast<int>((end - begin + S::kKeys - 1) / S::kKeys);
  const int n_stages = (n_all - warp + kWarps - 1) / kWarps;
  const auto first_key_of = [&](int i) {
    return begin + (static_cast<int64_t>(i) * kWarps + warp) * S::kKeys;
  };
  const uint32_t ring = shared_address(shared) + warp * S::kStages * S::kStageBytes;

  // Lane l holds the block of 8 keys: stage l / (kKeys / 8) of the current kPageStages, group l % (kKeys /
  // 8).
  const auto load_pages = [&](int first_stage) {
    const int64_t key = first_key_of(first_stage + lane / (S::kKeys / 8)) + lane % (S::kKeys / 8) * 8;
    return key < end ? sequence.blocks[key >> p.block_shift] : 0;
  };
  int pages = load_pages(0);
  int next_pages = load_pages(S::kPageStages);
  const int block_mask = (1 << p.block_shift) - 1;
  const auto issue = [&](int i) {
    if (i < n_stages) {
      if (i > 0 && i % S::kPageStages == 0) {
        pages = next_pages;
        next_pages = load_pages(i + S::kPageStages);
      }
      const int64_t first_key = first_key_of(i);
      const int page_base = i % S::kPageStages * (S::kKeys / 8);
      const uint32_t stage = ring + i % S::kStages * S::kStageBytes;
      const auto row_of = [&](int r) {
        const int64_t page = __shfl_sync(0xFFFFFFFFu, pages, page_base + r / 8);
        const int in_block = static_cast<int>(first_key + r) & block_mask;
        return ((page * p.cache.n_kv_heads + kv_head) << p.block_shift) + in_block;
      };
#pragma unroll
      for (int k = 0; k < S::kKeys * S::kChunks / 32; ++k) {
        const int r = (k * 32 + lane) / S::kChunks;
        const int chunk = (k * 32 + lane) % S::kChunks;
        const bool valid = first_key + r < end;
        const int64_t from = row_of(r) * S::kRowBytes + chunk * 16;
        const uint32_t to = stage + S::offset(r, chunk);
        copy_16(to, p.cache.keys + from, valid);
        copy_16(to + S::kMatrixBytes, p.cache.values + from, valid);
      }
      if constexpr (S::kQuantized) {
        const int64_t row = row_of(lane);
        const bool valid = first_key + lane < end;
        const uint32_t to = stage + 2 * S::kMatrixBytes + lane * 4;
        copy_4(to, p.cache.key_params + row * 2, valid);
        copy_4(to + S::kKeys * 4, p.cache.value_params + row * 2, valid);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) issue(i);

  // Queries: column g of this lane, in the order of the widened keys.
  uint32_t queries[kSteps][2];
  const float c = p.scale * kLog2e;
  float sum_q[2];
  {
    const bool valid = g < n_columns;
    const int64_t column = first_column + g;
    const int64_t at = (sequence.first_row + (valid ? column / p.group : 0)) * p.q_stride +
                       (static_cast<int64_t>(kv_head) * p.group + (valid ? column % p.group : 0)) * kDim;
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
  int64_t limits[2];
  int64_t full_limit = end;
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int64_t row = (first_column + min(2 * t + x, n_columns - 1)) / p.group;
    limits[x] = min(end, sequence.context - sequence.n_rows + row + 1);
  }
  full_limit = min(end, sequence.context - sequence.n_rows + first_column / p.group + 1);
  float maximum[2] = {kNoMaximum, kNoMaximum};
  float sums[2] = {0.0f, 0.0f};
  float offsets[2] = {0.0f, 0.0f};
  float output[kSteps][4] = {};

  // Row and chunk that this lane addresses for ldmatrix.
  const int matrix_row = lane % 16;
  const int matrix_chunk = lane / 16;
  for (int i = 0; i < n_stages; ++i) {
    wait_for_copies<S::kStages - 2>();
    __syncwarp();
    issue(i + S::kStages - 1);
    const uint32_t stage = ring + i % S::kStages * S::kStageBytes;
    const int64_t first_key = first_key_of(i);

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
    const unsigned char* params =
        shared + (warp * S::kStages + i % S::kStages) * S::kStageBytes + 2 * S::kMatrixBytes;
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
  }

  // Merge the warps in shared memory: [warp][8 columns][kDim + 4] weighted values, then [warp][8][2] maximum
  // and sum. Rings are done with.
#pragma unroll
  for (int x = 0; x < 2; ++x) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], offset);
      offsets[x] += __shfl_xor_sync(0xFFFFFFFFu, offsets[x], offset);
    }
  }
  constexpr int kStride = kDim + 4;
  static_assert(kWarps * kDecodeColumns * (kStride + 2) * 4 <= S::kSharedBytes);
  wait_for_copies<0>();
  __syncthreads();
  auto* merged = reinterpret_cast<float*>(shared);
  float* headers = merged + kWarps * kDecodeColumns * kStride;
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int column = warp * kDecodeColumns + 2 * t + x;
#pragma unroll
    for (int tile = 0; tile < kSteps; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        merged[column * kStride + output_channel<kFormat>(tile, half, g)] =
            fmaf(output[tile][2 * half + x], output_factor<kFormat>(half), offsets[x]);
      }
    }
    if (g == 0) {
      headers[column * 2] = maximum[x];
      headers[column * 2 + 1] = sums[x];
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n_columns * kDim; i += kThreads) {
    const int column = i / kDim;
    const int channel = i % kDim;
    float top = kNoMaximum;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, headers[(w * kDecodeColumns + column) * 2]);
    float sum = 0.0f;
    float weighted = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int at = w * kDecodeColumns + column;
      const float factor = exp2_fast(headers[at * 2] - top);
      sum = fmaf(headers[at * 2 + 1], factor, sum);
      weighted = fmaf(merged[at * kStride + channel], factor, weighted);
    }
    if (p.splits == 1) {
      const int64_t row = sequence.first_row + (first_column + column) / p.group;
      const int64_t head = static_cast<int64_t>(kv_head) * p.group + (first_column + column) % p.group;
      store_float(p.out, p.out_dtype, row * p.out_stride + head * kDim + channel, weighted / sum);
    } else {
      const int64_t tile = static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
      float* partial = p.partials + ((tile * p.splits + blockIdx.x) * kDecodeColumns + column) * (kDim + 2);
      if (channel == 0) {
        partial[0] = top;
        partial[1] = sum;
      }
      partial[2 + channel] = weighted;
    }
  }
}

/// Merges the parts of a column. Grid [8 columns, KV heads * column tiles, sequences], a thread a channel.
template <int kDim>
__global__ void __launch_bounds__(kDim) merge_splits(const DecodeParams p) {
  wait_for_dependencies();
  launch_dependents();
  const SequenceSpan sequence = p.sequences[blockIdx.z];
  const int kv_head = static_cast<int>(blockIdx.y) / p.column_tiles;
  const int64_t column = static_cast<int64_t>(blockIdx.y) % p.column_tiles * kDecodeColumns + blockIdx.x;
  if (sequence.n_rows > p.max_rows || column >= sequence.n_rows * p.group) return;
  const int64_t per_split = split_keys(sequence.context, p.splits);
  const int n = static_cast<int>((sequence.context + per_split - 1) / per_split);
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
  const float* partials = p.partials + (tile * p.splits * kDecodeColumns + blockIdx.x) * (kDim + 2);
  constexpr int64_t kStride = kDecodeColumns * (kDim + 2);
  const int channel = static_cast<int>(threadIdx.x);
  float top = kNoMaximum;
  for (int s = 0; s < n; ++s) top = fmaxf(top, partials[s * kStride]);
  float sum = 0.0f;
  float weighted = 0.0f;
  for (int s = 0; s < n; ++s) {
    const float factor = exp2_fast(partials[s * kStride] - top);
    sum = fmaf(partials[s * kStride + 1], factor, sum);
    weighted = fmaf(partials[s * kStride + 2 + channel], factor, weighted);
  }
  const int64_t row = sequence.first_row + column / p.group;
  const int64_t head = static_cast<int64_t>(kv_head) * p.group + column % p.group;
  store_float(p.out, p.out_dtype, row * p.out_stride + head * kDim + channel, weighted / sum);
}

}  // namespace decode
}  // namespace atom::cuda
