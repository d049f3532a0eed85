#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_view.h"

/// What the driver of the vectorized attention (attention.cpp) and its kernels (attention_avx2.cpp,
/// attention_avx512.cpp) agree on. The kernels' files are compiled for their instruction set: they may call
/// nothing inline from a shared header, so all they get is plain pointers and numbers.
namespace atom {

struct Attention;
struct DeviceContext;

namespace cpu::attention {

/// Keys of a tile, of a segment, and partial sums of exponentials: the contract of reference/attention.h.
inline constexpr int64_t kTile = 64;
inline constexpr int64_t kSegment = 512;
inline constexpr int64_t kSums = 16;
/// Query rows that a microkernel keeps in registers.
inline constexpr int64_t kBlockRows = 6;

/// Running softmax of `rows` query rows: maximum [rows], sums [rows, 16], weighted [rows, head_dim]. The
/// channels of `weighted` are in the order in which the kernel holds values of the cache's format.
struct State {
  float* maximum;
  float* sums;
  float* weighted;
};

/// Some tokens of a sequence and the query heads of one KV head. Row r is head r % group of token r / group.
struct Tile {
  const float* q;  // of the first token and head; the heads of a token are adjacent
  int64_t q_stride;
  float* out;
  int64_t out_stride;
  int64_t n_tokens;
  int64_t group;
  int64_t head_dim;  // a multiple of 16
  int64_t position;  // of the first token; it sees keys up to this one,
  int64_t window;    // and of these the last `window` (more than there are: all)
  float scale;

  KvFormat format;
  const std::byte* keys;
  const std::byte* values;
  const uint16_t* key_params;
  const uint16_t* value_params;
  const int32_t* blocks;
  int64_t block_size;
  int64_t n_kv_heads;
  int64_t kv_head;
};

/// Memory of a worker; 64-byte aligned.
struct Scratch {
  float* q;             // [rows, head_dim], scaled
  float* keys;          // [head_dim, kTile]
  float* values;        // [kTile, head_dim]
  float* scores;        // [kBlockRows, kTile]
  float* key_scales;    // [2, kTile]: scale, minimum
  float* value_scales;  // [2, kTile]
  State total;
  State segment;
};

/// One instruction set's kernels.
struct Kernels {
  /// Attention of `tile` over all of its keys, written to tile.out. Segments begin with first_segment(tile).
  void (*run)(const Tile& tile, const Scratch& scratch);
  /// The states of segments [first, last) alone, into states[0, last - first).
  void (*run_segments)(const Tile& tile, const Scratch& scratch, int64_t first, int64_t last,
                       const State* states);
  /// Merges the states of all segments [first, last) of `tile` and writes tile.out. states[0] is overwritten.
  void (*merge)(const Tile& tile, const State* states, int64_t first, int64_t last);
};

Kernels kernels_avx2();
Kernels kernels_avx512();

}  // namespace cpu::attention

namespace cpu {

bool supports_attention_avx2(const DeviceContext& device, const Attention& op);
bool supports_attention_avx512(const DeviceContext& device, const Attention& op);
void attention_avx2(const DeviceContext& device, const Attention& op);
void attention_avx512(const DeviceContext& device, const Attention& op);

}  // namespace cpu
}  // namespace atom
