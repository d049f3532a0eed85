#pragma once

#include <cmath>
#include <cstdint>
#include <cuda_fp16.h>

#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/runtime.h"
#include "kernels/kv_view.h"
#include "kernels/numerics.h"
#include "kernels/ops.h"

/// Exact attention: bit-identical with the CPU. The order of the arithmetic is that of
/// kernels/reference/attention.h; compile with --fmad=false.
///
/// A block of 128 threads has kRows query rows of one sequence and KV head (row r is token r / group, query
/// head r % group) and visits the keys in tiles of 64, dequantized to float in shared memory. Scores: a
/// thread has kRows / 8 rows x 4 keys, each score one chain of fma over ascending channels. Softmax: 128 /
/// kRows threads a row, each with its share of the 16 partial sums. P V: a thread has kRows / 8 rows x 4
/// channels (times kDim / 64), each one chain over ascending keys. A chain is never split, so parallelism
/// changes no bit.
///
/// Tiles and segments that are before the windows of all of a block's rows are skipped; where a row sees none
/// of a tile's or segment's keys, its state is left as it is.
///
/// Either a block visits all segments of 512 keys and merges them itself, or (Split) it visits one and stores
/// its maximum, sums and weighted values, which merge_segments() merges in order.
namespace atom::cuda {

struct ExactParams {
  const float* q;
  int64_t q_stride;
  float* out;
  int64_t out_stride;
  const SequenceSpan* sequences;
  KvLayerView cache;
  int group;
  float scale;
  /// Keys that a row sees at most.
  int64_t window;
  int64_t max_rows;
  int64_t segments;
  /// [n_sequences * max_rows, n_heads, segments, kExactPartialHeader + head_dim], where split.
  float* partials;
};

namespace exact {

constexpr int kThreads = 128;
constexpr int kTile = 64;
constexpr int kSegment = 512;
constexpr int kSums = 16;
constexpr int kScoreStride = kTile + 4;

__device__ inline float half_value(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

/// `count` (8 or 2) channels from channel `d` on of a cached row, as floats.
template <int kCount>
__device__ inline void load_channels(KvFormat format, const std::byte* row, const uint16_t* params, int d,
                                     float* out) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(row);
  if (format == KvFormat::f32) {
    const auto* source = reinterpret_cast<const float2*>(bytes + d * 4);
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float2 pair = source[i];
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
    return;
  }
  if (format == KvFormat::f16) {
    if constexpr (kCount == 8) {
      const uint4 words = *reinterpret_cast<const uint4*>(bytes + d * 2);
      const uint32_t w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = half_value(static_cast<uint16_t>(w[i / 2] >> (i % 2 * 16)));
    } else {
      const uint32_t w = *reinterpret_cast<const uint32_t*>(bytes + d * 2);
      out[0] = half_value(static_cast<uint16_t>(w));
      out[1] = half_value(static_cast<uint16_t>(w >> 16));
    }
    return;
  }
  const uint32_t pair = *reinterpret_cast<const uint32_t*>(params);
  const float scale = half_value(static_cast<uint16_t>(pair));
  const float minimum = half_value(static_cast<uint16_t>(pair >> 16));
  uint32_t q[kCount];
  if (format == KvFormat::int8) {
    if constexpr (kCount == 8) {
      const uint2 words = *reinterpret_cast<const uint2*>(bytes + d);
#pragma unroll
      for (int i = 0; i < 8; ++i) q[i] = ((i < 4 ? words.x : words.y) >> (i % 4 * 8)) & 255u;
    } else {
      q[0] = bytes[d];
      q[1] = bytes[d + 1];
    }
  } else {
    if constexpr (kCount == 8) {
      const uint32_t word = *reinterpret_cast<const uint32_t*>(bytes + d / 2);
#pragma unroll
      for (int i = 0; i < 8; ++i) q[i] = (word >> (i * 4)) & 15u;
    } else {
      q[0] = bytes[d / 2] & 15u;
      q[1] = bytes[d / 2] >> 4;
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) out[i] = fmaf(static_cast<float>(q[i]), scale, minimum);
}

/// `count` keys and values from token `first` on, to shared memory.
template <int kDim, int kCount>
__device__ inline void load_tile(const KvLayerView& cache, const int32_t* blocks, int64_t kv_head,
                                 int64_t first, int count, float* keys, float* values) {
  const int per_row = static_cast<int>(cache.head_dim) / kCount;
  const int64_t row_bytes = cache.row_bytes();
  for (int i = static_cast<int>(threadIdx.x); i < count * per_row; i += kThreads) {
    const int j = i / per_row;
    const int d = i % per_row * kCount;
    const int64_t token = first + j;
    const int64_t row = cache.row_index(blocks[token / cache.block_size], kv_head, token % cache.block_size);
    float k[kCount];
    float v[kCount];
    load_channels<kCount>(cache.format, cache.keys + row * row_bytes, cache.key_params + row * 2, d, k);
    load_channels<kCount>(cache.format, cache.values + row * row_bytes, cache.value_params + row * 2, d, v);
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      keys[j * (kDim + 4) + d + c] = k[c];
      values[j * kDim + d + c] = v[c];
    }
  }
}

/// A candidate that is NaN is passed over.
__device__ inline float max_of(float candidate, float current) {
  return candidate > current ? candidate : current;
}

__device__ inline float fold(float* sums) {
#pragma unroll
  for (int half = kSums / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

template <int kDim, int kRows>
constexpr int shared_floats() {
  return kRows * kDim + kTile * (kDim + 4) + kTile * kDim + kRows * kScoreStride + kRows * (2 + kSums);
}

template <int kDim, int kRows>
__global__ void __launch_bounds__(kThreads) attend(const ExactParams p, int64_t row_tiles, bool split) {
  constexpr int kOwnRows = kRows / 8;
  constexpr int kParts = kDim / 64;
  constexpr int kLanes = kThreads / kRows;
  constexpr int kOwnSums = kSums / kLanes;
  wait_for_dependencies();
  launch_dependents();
  extern __shared__ float shared[];
  float* queries = shared;                         // [kRows][kDim], scaled
  float* keys = queries + kRows * kDim;            // [64][kDim + 4]
  float* values = keys + kTile * (kDim + 4);       // [64][kDim]
  float* scores = values + kTile * kDim;           // [kRows][68]
  float* factors = scores + kRows * kScoreStride;  // [kRows][2]
  float* all_sums = factors + kRows * 2;           // [kRows][16]

  const int tid = static_cast<int>(threadIdx.x);
  const SequenceSpan sequence = p.sequences[blockIdx.z];
  const int64_t kv_head = blockIdx.y;
  // The last rows see the most keys: they go first.
  const int64_t tile_index = row_tiles - 1 - static_cast<int64_t>(blockIdx.x) % row_tiles;
  const int64_t only_segment = static_cast<int64_t>(blockIdx.x) / row_tiles;
  const int64_t n_rows = sequence.n_rows * p.group;
  const int64_t first_row = tile_index * kRows;
  if (first_row >= n_rows) return;
  const int64_t past = sequence.context - sequence.n_rows;
  const int head_dim = static_cast<int>(p.cache.head_dim);
  /// Keys that row r of this block sees; 0 for a row that is not there.
  const auto limit_of = [&](int r) {
    const int64_t row = first_row + r;
    return row < n_rows ? past + row / p.group + 1 : int64_t{0};
  };
  const int64_t last_row = min(first_row + kRows, n_rows) - 1;
  const int64_t most_keys = past + last_row / p.group + 1;
  // Rows that are not there see none: no tile is full for them.
  const int64_t fewest_keys = limit_of(0);
  // No row of the block sees a key before this tile.
  const int64_t first_tile = max(fewest_keys - p.window, int64_t{0}) / kTile * kTile;
  const int64_t begin = split ? only_segment * kSegment : first_tile / kSegment * kSegment;
  const int64_t end = split ? min(begin + kSegment, most_keys) : most_keys;
  if (begin >= end || end <= first_tile) return;

  for (int i = tid; i < kTile * (kDim + 4) + kTile * kDim; i += kThreads) keys[i] = 0.0f;
  for (int i = tid; i < kRows * kDim; i += kThreads) {
    const int64_t row = first_row + i / kDim;
    const int d = i % kDim;
    float x = 0.0f;
    if (row < n_rows && d < head_dim) {
      const int64_t head = kv_head * p.group + row % p.group;
      x = p.q[(sequence.first_row + row / p.group) * p.q_stride + head * head_dim + d] * p.scale;
    }
    queries[i] = x;
  }

  // As one of a row's threads: its maximum and sums; as one of its channels' threads: weighted values.
  const int own_row = tid / kLanes;
  const int own_lane = tid % kLanes;
  const int64_t own_limit = limit_of(own_row);
  const int row_group = tid / 16;
  const int column = tid % 16;
  int64_t limits[kOwnRows];
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) limits[i] = limit_of(row_group * kOwnRows + i);
  float total_maximum = -INFINITY;
  float total_sums[kOwnSums] = {};
  float total[kOwnRows][kParts][4] = {};

  for (int64_t segment = begin; segment < end; segment += kSegment) {
    float maximum = -INFINITY;
    float sums[kOwnSums] = {};
    float weighted[kOwnRows][kParts][4] = {};
    const int64_t segment_end = min(segment + kSegment, end);
    for (int64_t first = max(segment, first_tile); first < segment_end; first += kTile) {
      const int count = static_cast<int>(min(segment_end - first, int64_t{kTile}));
      __syncthreads();
      if (head_dim % 8 == 0) {
        load_tile<kDim, 8>(p.cache, sequence.blocks, kv_head, first, count, keys, values);
      } else {
        load_tile<kDim, 2>(p.cache, sequence.blocks, kv_head, first, count, keys, values);
      }
      __syncthreads();

      float s[kOwnRows][4] = {};
      for (int d = 0; d < head_dim; d += 4) {
        float4 k[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          k[j] = *reinterpret_cast<const float4*>(keys + (column + 16 * j) * (kDim + 4) + d);
        }
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
          const float4 x = *reinterpret_cast<const float4*>(queries + (row_group * kOwnRows + i) * kDim + d);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            s[i][j] = fmaf(x.x, k[j].x, s[i][j]);
            s[i][j] = fmaf(x.y, k[j].y, s[i][j]);
            s[i][j] = fmaf(x.z, k[j].z, s[i][j]);
            s[i][j] = fmaf(x.w, k[j].w, s[i][j]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t key = first + column + 16 * j;
          const bool visible = key < limits[i] && key >= limits[i] - p.window;
          scores[(row_group * kOwnRows + i) * kScoreStride + column + 16 * j] = visible ? s[i][j] : -INFINITY;
        }
      }
      __syncthreads();

      float e[4][kOwnSums];
      float* row_scores = scores + own_row * kScoreStride + own_lane * kOwnSums;
      float largest = maximum;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < kOwnSums; ++i) {
          e[k][i] = row_scores[16 * k + i];
          largest = max_of(e[k][i], largest);
        }
      }
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2) {
        largest = max_of(__shfl_xor_sync(0xFFFFFFFFu, largest, offset), largest);
      }
      const bool any = first < own_limit && first + kTile > own_limit - p.window;
      const float correction = any ? numerics::exp(maximum - largest) : 1.0f;
      maximum = largest;
#pragma unroll
      for (int i = 0; i < kOwnSums; ++i) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int64_t key = first + 16 * k + own_lane * kOwnSums + i;
          const bool visible = key < own_limit && key >= own_limit - p.window;
          const float term = visible ? numerics::exp(e[k][i] - maximum) : 0.0f;
          row_scores[16 * k + i] = term;
          sum += term;
        }
        if (any) sums[i] = fmaf(sums[i], correction, sum);
      }
      if (own_lane == 0) factors[2 * own_row] = correction;
      __syncthreads();

#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
        const float factor = factors[2 * (row_group * kOwnRows + i)];
#pragma unroll
        for (int c = 0; c < kParts; ++c) {
#pragma unroll
          for (int x = 0; x < 4; ++x) weighted[i][c][x] *= factor;
        }
      }
      const bool full =
          first + kTile <= fewest_keys && first >= most_keys - p.window && first_row + kRows <= n_rows;
      for (int j = 0; j < kTile; j += 4) {
        if (j >= count) break;
        float4 e4[kOwnRows];
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
          e4[i] = *reinterpret_cast<const float4*>(scores + (row_group * kOwnRows + i) * kScoreStride + j);
        }
#pragma unroll
        for (int y = 0; y < 4; ++y) {
          float4 v[kParts];
#pragma unroll
          for (int c = 0; c < kParts; ++c) {
            v[c] = *reinterpret_cast<const float4*>(values + (j + y) * kDim + 64 * c + 4 * column);
          }
#pragma unroll
          for (int i = 0; i < kOwnRows; ++i) {
            const float w = y == 0 ? e4[i].x : (y == 1 ? e4[i].y : (y == 2 ? e4[i].z : e4[i].w));
            // A row must not touch keys that it does not see: 0 times infinity would be NaN.
            const int64_t key = first + j + y;
            if (full || (key < limits[i] && key >= limits[i] - p.window)) {
#pragma unroll
              for (int c = 0; c < kParts; ++c) {
                weighted[i][c][0] = fmaf(w, v[c].x, weighted[i][c][0]);
                weighted[i][c][1] = fmaf(w, v[c].y, weighted[i][c][1]);
                weighted[i][c][2] = fmaf(w, v[c].z, weighted[i][c][2]);
                weighted[i][c][3] = fmaf(w, v[c].w, weighted[i][c][3]);
              }
            }
          }
        }
      }
    }

    /// Whether a row sees keys of this segment.
    const auto sees = [&](int64_t limit) { return segment < limit && segment + kSegment > limit - p.window; };
    if (split) {
      const int64_t n_heads = p.cache.n_kv_heads * p.group;
      const int64_t stride = kExactPartialHeader + head_dim;
      const auto partial_of = [&](int r) {
        const int64_t row = first_row + r;
        const int64_t token = static_cast<int64_t>(blockIdx.z) * p.max_rows + row / p.group;
        const int64_t head = kv_head * p.group + row % p.group;
        return p.partials + ((token * n_heads + head) * p.segments + only_segment) * stride;
      };
      if (sees(own_limit)) {
        float* partial = partial_of(own_row);
        if (own_lane == 0) partial[0] = maximum;
#pragma unroll
        for (int i = 0; i < kOwnSums; ++i) partial[4 + own_lane * kOwnSums + i] = sums[i];
      }
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
        if (!sees(limits[i])) continue;
        float* partial = partial_of(row_group * kOwnRows + i) + kExactPartialHeader;
#pragma unroll
        for (int c = 0; c < kParts; ++c) {
#pragma unroll
          for (int x = 0; x < 4; ++x) {
            const int d = 64 * c + 4 * column + x;
            if (d < head_dim) partial[d] = weighted[i][c][x];
          }
        }
      }
      return;
    }

    const bool any = sees(own_limit);
    const float merged = max_of(maximum, total_maximum);
    const float c_total = any ? numerics::exp(total_maximum - merged) : 1.0f;
    const float c_segment = any ? numerics::exp(maximum - merged) : 0.0f;
    total_maximum = merged;
    if (any) {
#pragma unroll
      for (int i = 0; i < kOwnSums; ++i) total_sums[i] = fmaf(total_sums[i], c_total, sums[i] * c_segment);
    }
    __syncthreads();
    if (own_lane == 0) {
      factors[2 * own_row] = c_total;
      factors[2 * own_row + 1] = c_segment;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
      if (!sees(limits[i])) continue;
      const float c0 = factors[2 * (row_group * kOwnRows + i)];
      const float c1 = factors[2 * (row_group * kOwnRows + i) + 1];
#pragma unroll
      for (int c = 0; c < kParts; ++c) {
#pragma unroll
        for (int x = 0; x < 4; ++x) total[i][c][x] = fmaf(total[i][c][x], c0, weighted[i][c][x] * c1);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kOwnSums; ++i) all_sums[own_row * kSums + own_lane * kOwnSums + i] = total_sums[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    if (limits[i] == 0) continue;
    const int r = row_group * kOwnRows + i;
    float folded[kSums];
#pragma unroll
    for (int k = 0; k < kSums; ++k) folded[k] = all_sums[r * kSums + k];
    const float sum = fold(folded);
    const int64_t row = first_row + r;
    const int64_t head = kv_head * p.group + row % p.group;
    float* out = p.out + (sequence.first_row + row / p.group) * p.out_stride + head * head_dim;
#pragma unroll
    for (int c = 0; c < kParts; ++c) {
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const int d = 64 * c + 4 * column + x;
        if (d < head_dim) out[d] = total[i][c][x] / sum + 0.0f;
      }
    }
  }
}

/// Merges the segments of one row in order. Grid [n_heads, max_rows, n_sequences], a thread a channel.
__global__ void __launch_bounds__(kThreads) merge_segments(const ExactParams p) {
  wait_for_dependencies();
  launch_dependents();
  const SequenceSpan sequence = p.sequences[blockIdx.z];
  const int64_t token = blockIdx.y;
  if (token >= sequence.n_rows) return;
  const int64_t head = blockIdx.x;
  const int head_dim = static_cast<int>(p.cache.head_dim);
  const int64_t stride = kExactPartialHeader + head_dim;
  const int64_t row = static_cast<int64_t>(blockIdx.z) * p.max_rows + token;
  const float* partials = p.partials + (row * gridDim.x + head) * p.segments * stride;
  const int64_t limit = sequence.context - sequence.n_rows + token + 1;
  const int64_t n = (limit + kSegment - 1) / kSegment;
  float* out = p.out + (sequence.first_row + token) * p.out_stride + head * head_dim;
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kThreads) {
    float maximum = -INFINITY;
    float sums[kSums] = {};
    float weighted = 0.0f;
    for (int64_t s = max(limit - p.window, int64_t{0}) / kSegment; s < n; ++s) {
      const float* partial = partials + s * stride;
      const float merged = max_of(partial[0], maximum);
      const float c_row = numerics::exp(maximum - merged);
      const float c_segment = numerics::exp(partial[0] - merged);
      maximum = merged;
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] = fmaf(sums[i], c_row, partial[4 + i] * c_segment);
      weighted = fmaf(weighted, c_row, partial[kExactPartialHeader + d] * c_segment);
    }
    out[d] = weighted / fold(sums) + 0.0f;
  }
}

}  // namespace exact
}  // namespace atom::cuda
