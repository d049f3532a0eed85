#pragma once

#include <cstdint>

#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/attention/fast_params.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/kv_view.h"
#include "kernels/ops.h"

/// Shapes and work items of the prefill kernel (prefill_kernel.cuh), which its producers and consumers walk
/// through alike.
namespace atom::cuda {

struct PrefillParams : FastParams {
  int n_heads;
  int n_sequences;
  /// Sequences of so few rows are the decode kernel's.
  int max_decode_rows;
  int row_tiles;
};

namespace prefill {

constexpr int kRows = 128;
constexpr int kKeys = 128;
constexpr int kThreads = 512;
constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = 200;
/// Raw tiles of a quantized cache in flight.
constexpr int kRawStages = 2;

/// Shared memory: queries, stages of keys and of values as fp16 tiles, then raw tiles of a quantized cache.
template <KvFormat kFormat, int kDim>
struct Shape {
  static constexpr bool kQuantized = is_quantized(kFormat);
  static constexpr int kStages = kQuantized ? 2 : 3;
  /// Parts of 64 channels.
  static constexpr int kParts = kDim / 64;
  static constexpr int kPartBytes = kKeys * 128;
  static constexpr int kTileBytes = kParts * kPartBytes;
  static constexpr int kRawBytes = kQuantized ? kKeys * kDim * bits_of(kFormat) / 8 : 0;
  static constexpr int kStagesAt = kTileBytes;
  static constexpr int kRawAt = kStagesAt + 2 * kStages * kTileBytes;
  static constexpr int kSharedBytes = kRawAt + 2 * kRawStages * kRawBytes + 1024;
};

/// Byte offset of 16-byte chunk `chunk` (8 channels) of row `row` in a tile: the swizzle that wgmma reads.
__device__ inline int chunk_offset(int row, int chunk) {
  return chunk / 8 * (kKeys * 128) + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

__device__ inline void store_16(uint32_t to, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

/// A tile of rows of a head of a sequence; n_tiles is 0 where there is nothing to do.
struct Item {
  int round;
  int64_t first_row;
  const int32_t* blocks;
  int head;
  /// Rows of this item, and the position of the first of them.
  int n_rows;
  int position;
  int end;
  int n_tiles;
};

__device__ inline int n_items(const PrefillParams& p) {
  return p.row_tiles * p.n_heads * p.n_sequences;
}

/// Item `index` of all.
__device__ inline Item item_at(const PrefillParams& p, int index) {
  Item item = {};
  const int others = p.n_heads * p.n_sequences;
  const int first = (p.row_tiles - 1 - index / others) * kRows;
  const SequenceSpan& sequence = p.sequences[index % others / p.n_heads];
  const int n_rows = static_cast<int>(sequence.n_rows);
  if (n_rows <= p.max_decode_rows || first >= n_rows) return item;
  item.first_row = sequence.first_row + first;
  item.blocks = sequence.blocks;
  item.head = index % p.n_heads;
  item.n_rows = min(kRows, n_rows - first);
  item.position = static_cast<int>(sequence.context) - n_rows + first;
  item.end = item.position + item.n_rows;
  item.n_tiles = (item.end + kKeys - 1) / kKeys;
  return item;
}

/// This block's first item with work from `round` on; the rounds alternate in direction. Without tiles when
/// there is none.
__device__ inline Item next_item(const PrefillParams& p, int round) {
  const int blocks = static_cast<int>(gridDim.x);
  const int own = static_cast<int>(blockIdx.x);
  for (;; ++round) {
    if (round * blocks >= n_items(p)) return {};
    const int index = round * blocks + (round % 2 == 0 ? own : blocks - 1 - own);
    if (index >= n_items(p)) continue;
    Item item = item_at(p, index);
    item.round = round;
    if (item.n_tiles > 0) return item;
  }
}

/// A stage of a ring, and the parity of its barriers' phase.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    const bool last = stage + 1 == kStages;
    stage = last ? 0 : stage + 1;
    phase ^= last ? 1u : 0u;
  }
};

/// Full and empty, of the stages of keys and of values.
template <int kStages>
struct Barriers {
  uint64_t full[2][kStages];
  uint64_t empty[2][kStages];
};

}  // namespace prefill
}  // namespace atom::cuda
