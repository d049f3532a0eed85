#pragma once

#include <cstdint>

#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/attention/fast_params.h"
#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/attention/wgmma_f16.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/kv_view.h"
#include "kernels/ops.h"
#include "tensor/dtype.h"

/// Attention of many rows a sequence (prefill, whole or in chunks) over the paged cache, causal: online
/// softmax in the form of FlashAttention-3 (Shah et al. 2024). Fast: fp16 operands, sums in any order.
///
/// A block has a tile of 128 rows of one query head and visits the keys in tiles of 128. Two warpgroups
/// produce, one keys and one values: they gather them from their pages and widen them to fp16 in shared
/// memory, in the swizzled form that wgmma reads, two tiles of each in flight. Two warpgroups consume, 64
/// rows each: while the tensor cores do S of the next tile and P V of this one, the softmax of the next tile
/// runs. Blocks are persistent; the longest row tiles come first, in alternating order, so that blocks end
/// together.
///
///   S [64, 128] = Q K^T (shared, shared);  P = 2^(c S - m);  O [64, head_dim] += P V (registers, shared)
///
/// int4 words leave unpacking as channels 0 4 1 5 2 6 3 7: Q has them in that order too, and the output is
/// put back.
namespace atom::cuda {

struct PrefillParams : FastParams {
  int n_heads;
  int n_sequences;
  /// Sequences of so few rows are the decode kernel's.
  int max_decode_rows;
  int row_tiles;
};

namespace prefill {

using namespace fragments;

constexpr int kRows = 128;
constexpr int kKeys = 128;
constexpr int kStages = 2;
constexpr int kThreads = 512;
constexpr int kProducerRegisters = 56;
constexpr int kConsumerRegisters = 200;
constexpr float kLog2e = 1.4426950408889634f;

template <int kDim>
struct Shape {
  /// Tiles of 64 channels.
  static constexpr int kParts = kDim / 64;
  static constexpr int kPartBytes = kKeys * 128;
  static constexpr int kTileBytes = kParts * kPartBytes;
  static constexpr int kSharedBytes = (1 + 2 * kStages) * kTileBytes + 1024 + 128;
};

/// Channel at place `place` of a row in shared memory.
template <KvFormat kFormat>
__device__ inline int channel_at(int place) {
  if constexpr (kFormat != KvFormat::int4) return place;
  const int i = place % 8;
  return place - i + i / 2 + i % 2 * 4;
}

/// Byte offset of 16-byte chunk `chunk` (8 channels) of row `row` in a tile.
__device__ inline int chunk_offset(int row, int chunk) {
  return chunk / 8 * (kKeys * 128) + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

/// A tile of rows of a head of a sequence; n_tiles is 0 where there is nothing to do.
struct Item {
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

/// The `round`-th item of this block; the rounds alternate in direction.
__device__ inline Item item_at(const PrefillParams& p, int round) {
  const int blocks = static_cast<int>(gridDim.x);
  const int own = static_cast<int>(blockIdx.x);
  const int index = round * blocks + (round % 2 == 0 ? own : blocks - 1 - own);
  Item item = {};
  if (index >= n_items(p)) return item;
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

__device__ inline __half2 as_half2(uint32_t x) {
  return *reinterpret_cast<const __half2*>(&x);
}
__device__ inline uint32_t as_word(__half2 x) {
  return *reinterpret_cast<const uint32_t*>(&x);
}

/// 8 channels of an int4 word, or of two int8 words, as fp16: q * scale + minimum.
__device__ inline uint4 widen_int4(uint32_t word, __half2 scale, __half2 minimum) {
  // 1024 + n in fp16 is 0x6400 | n; 1024 + 16 n likewise.
  const __half2 base = as_half2(0x64006400u);
  const __half2 sixteenth = as_half2(0x2C002C00u);
  const __half2 minus_64 = as_half2(0xD400D400u);
  uint32_t r[4];
  nibbles(word, r);
  const __half2 n0 = __hsub2(as_half2(r[0] | 0x64006400u), base);
  const __half2 n1 = __hfma2(as_half2(r[1] | 0x64006400u), sixteenth, minus_64);
  const __half2 n2 = __hsub2(as_half2(r[2] | 0x64006400u), base);
  const __half2 n3 = __hfma2(as_half2(r[3] | 0x64006400u), sixteenth, minus_64);
  return {as_word(__hfma2(n0, scale, minimum)), as_word(__hfma2(n1, scale, minimum)),
          as_word(__hfma2(n2, scale, minimum)), as_word(__hfma2(n3, scale, minimum))};
}
__device__ inline uint4 widen_int8(uint32_t low, uint32_t high, __half2 scale, __half2 minimum) {
  const __half2 base = as_half2(0x64006400u);
  const auto pair = [&](uint32_t word, uint32_t selector) {
    const __half2 n = __hsub2(as_half2(__byte_perm(word, 0x64646464u, selector)), base);
    return as_word(__hfma2(n, scale, minimum));
  };
  return {pair(low, 0x4140), pair(low, 0x4342), pair(high, 0x4140), pair(high, 0x4342)};
}

__device__ inline void store_16(uint32_t to, uint4 x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

/// Word `i` (16 bytes) of a row of a quantized cache, widened to its place in row `row` of a tile.
template <KvFormat kFormat>
__device__ inline void store_word(uint32_t tile, int row, int i, uint4 word, __half2 scale, __half2 minimum) {
  const uint32_t w[4] = {word.x, word.y, word.z, word.w};
  if constexpr (kFormat == KvFormat::int4) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      store_16(tile + chunk_offset(row, 4 * i + k), widen_int4(w[k], scale, minimum));
  } else {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      store_16(tile + chunk_offset(row, 2 * i + k), widen_int8(w[2 * k], w[2 * k + 1], scale, minimum));
    }
  }
}

/// Barriers: full and empty of the stages of keys and of values.
struct Barriers {
  uint64_t full[2][kStages];
  uint64_t empty[2][kStages];
};

/// Fills the stages of keys (what = 0) or values (1).
template <KvFormat kFormat, int kDim>
__device__ inline void produce(const PrefillParams& p, int what, uint32_t tiles, Barriers& barriers) {
  using S = Shape<kDim>;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int lane = thread % 32;
  const std::byte* const rows = what == 0 ? p.cache.keys : p.cache.values;
  const uint16_t* const params = what == 0 ? p.cache.key_params : p.cache.value_params;
  const int n_rounds = (n_items(p) + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  int n = 0;
  const auto stage_of = [&](int i) {
    return tiles + static_cast<uint32_t>((what * kStages + i % kStages) * S::kTileBytes);
  };
  const auto wait_empty = [&]() {
    ptx::barrier_wait(&barriers.empty[what][n % kStages], (n / kStages + 1) % 2);
  };
  const auto finish = [&](int i) {
    wgmma::fence_stores();
    ptx::barrier_arrive(&barriers.full[what][i % kStages]);
  };
  for (int round = 0; round < n_rounds; ++round) {
    const Item item = item_at(p, round);
    if (item.n_tiles == 0) continue;
    const int kv_head = item.head / p.group;
    const int in_block = (1 << p.block_shift) - 1;
    const auto place_of = [&](int key) -> int64_t {
      if (key >= item.end) return -1;
      const int64_t page = item.blocks[key >> p.block_shift];
      return ((page * p.cache.n_kv_heads + kv_head) << p.block_shift) + (key & in_block);
    };
    if constexpr (kFormat == KvFormat::f16) {
      constexpr int kChunks = kDim / 8;
      constexpr int kRowsPerCopy = 128 / kChunks;
      // Lane l has the place of keys 8 (l % 16) and on of a tile.
      int64_t places = place_of(lane % 16 * 8);
      for (int tile = 0; tile < item.n_tiles; ++tile) {
        const int64_t next_places = place_of((tile + 1) * kKeys + lane % 16 * 8);
        wait_empty();
        const uint32_t stage = stage_of(n);
#pragma unroll
        for (int i = 0; i < kKeys / kRowsPerCopy; ++i) {
          const int r = i * kRowsPerCopy + thread / kChunks;
          const int64_t place = __shfl_sync(0xFFFFFFFFu, places, r / 8) + r % 8;
          const bool valid = tile * kKeys + r < item.end;
          copy_16(stage + chunk_offset(r, thread % kChunks),
                  rows + (valid ? place : 0) * (kDim * 2) + thread % kChunks * 16, valid);
        }
        async_commit();
        // The tile before has arrived.
        if (tile > 0) {
          async_wait<1>();
          finish(n - 1);
        }
        ++n;
        places = next_places;
      }
      async_wait<0>();
      finish(n - 1);
    } else {
      // Thread r has row r of every tile. As soon as a word is widened, the next tile's is loaded.
      constexpr int kWords = kDim * bits_of(kFormat) / 128;
      uint4 words[kWords] = {};
      uint32_t pair = 0;
      int64_t place = place_of(thread);
      int64_t next_place = place_of(kKeys + thread);
      if (place >= 0) {
        const auto* source = reinterpret_cast<const uint4*>(rows) + place * kWords;
#pragma unroll
        for (int i = 0; i < kWords; ++i) words[i] = __ldg(source + i);
        pair = __ldg(reinterpret_cast<const uint32_t*>(params) + place);
      }
      for (int tile = 0; tile < item.n_tiles; ++tile) {
        const uint32_t stage = stage_of(n);
        const __half2 scale = __low2half2(as_half2(pair));
        const __half2 minimum = __high2half2(as_half2(pair));
        const bool valid = next_place >= 0;
        const auto* source = reinterpret_cast<const uint4*>(rows) + (valid ? next_place : 0) * kWords;
        pair = valid ? __ldg(reinterpret_cast<const uint32_t*>(params) + next_place) : 0u;
        next_place = place_of((tile + 2) * kKeys + thread);
        wait_empty();
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
          store_word<kFormat>(stage, thread, i, words[i], scale, minimum);
          words[i] = valid ? __ldg(source + i) : uint4{0, 0, 0, 0};
        }
        finish(n);
        ++n;
      }
    }
  }
}

template <KvFormat kFormat, int kDim>
__device__ inline void consume(const PrefillParams& p, uint32_t queries, uint32_t tiles, Barriers& barriers) {
  using S = Shape<kDim>;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int consumer = static_cast<int>(threadIdx.x) / 128 - 2;
  const int lane = thread % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const float c = p.scale * kLog2e;
  const int n_rounds = (n_items(p) + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  int n_keys = 0;
  int n_values = 0;
  const auto wait_full = [&](int what, int n) {
    ptx::barrier_wait(&barriers.full[what][n % kStages], n / kStages % 2);
  };
  const auto release = [&](int what, int n) {
    if (lane == 0) ptx::barrier_arrive(&barriers.empty[what][n % kStages]);
  };
  const auto stage_of = [&](int what, int n) {
    return tiles + static_cast<uint32_t>((what * kStages + n % kStages) * S::kTileBytes);
  };

  for (int round = 0; round < n_rounds; ++round) {
    const Item item = item_at(p, round);
    if (item.n_tiles == 0) continue;

    // Queries, 64 rows of this warpgroup, once all its warps are done with the last ones.
    ptx::named_barrier(1 + consumer, 128);
    for (int i = thread; i < 64 * (kDim / 8); i += 128) {
      const int r = consumer * 64 + i / (kDim / 8);
      const int chunk = i % (kDim / 8);
      uint4 packed = {0, 0, 0, 0};
      if (r < item.n_rows) {
        const int64_t at =
            (item.first_row + r) * p.q_stride + static_cast<int64_t>(item.head) * kDim + chunk * 8;
        float x[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] = load_float(p.q, p.q_dtype, at + channel_at<kFormat>(k));
        packed = {pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
      }
      store_16(queries + chunk_offset(r, chunk), packed);
    }
    wgmma::fence_stores();
    ptx::named_barrier(1 + consumer, 128);

    // Rows of this thread: first and first + 8; the keys that they see.
    const int first = consumer * 64 + thread / 32 * 16 + g;
    const int limits[2] = {item.position + min(first, item.n_rows - 1) + 1,
                           item.position + min(first + 8, item.n_rows - 1) + 1};
    const int full_tiles = (item.position + min(consumer * 64, item.n_rows - 1) + 1) / kKeys;
    float maximum[2] = {-1e30f, -1e30f};
    float sums[2] = {0.0f, 0.0f};
    float output[kDim / 2];
#pragma unroll
    for (float& x : output) x = 0.0f;
    float scores[64];
    uint32_t weights[8][4];

    const auto start_scores = [&](int n) {
      const uint32_t keys = stage_of(0, n);
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {
        const uint32_t at = static_cast<uint32_t>(step / 4 * S::kPartBytes + step % 4 * 32);
        wgmma::multiply_shared(scores, wgmma::descriptor(queries + consumer * 64 * 128 + at),
                               wgmma::descriptor(keys + at), step > 0);
      }
      wgmma::commit();
    };
    const auto start_output = [&](int n) {
      const uint32_t values = stage_of(1, n);
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step) {
        wgmma::multiply_transposed(
            output, weights[step],
            wgmma::descriptor(values + static_cast<uint32_t>(step) * 2048, S::kPartBytes));
      }
      wgmma::commit();
    };
    // Scores become weights (unpacked, in place); returns by how much earlier sums shrink.
    const auto softmax = [&](int tile, float(&correction)[2]) {
      if (tile >= full_tiles) {
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          const int key = tile * kKeys + i / 4 * 8 + 2 * t + i % 2;
          if (key >= limits[i / 2 % 2]) scores[i] = -INFINITY;
        }
      }
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        float largest = scores[2 * x];
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          largest = fmaxf(largest, fmaxf(scores[4 * i + 2 * x], scores[4 * i + 2 * x + 1]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
        largest = fmaxf(largest * c, maximum[x]);
        correction[x] = exp2_fast(maximum[x] - largest);
        maximum[x] = largest;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
#pragma unroll
          for (int y = 0; y < 2; ++y) {
            float& s = scores[4 * i + 2 * x + y];
            s = exp2_fast(fmaf(s, c, -largest));
            sum += s;
          }
        }
        sums[x] = fmaf(sums[x], correction[x], sum);
      }
    };
    const auto pack_weights = [&]() {
#pragma unroll
      for (int step = 0; step < 8; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          weights[step][i] = pack(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
      }
    };

    float correction[2];
    wait_full(0, n_keys);
    start_scores(n_keys);
    wgmma::wait<0>();
    release(0, n_keys);
    ++n_keys;
    softmax(0, correction);
    pack_weights();
    for (int tile = 1; tile < item.n_tiles; ++tile) {
      wait_full(0, n_keys);
      start_scores(n_keys);
      wait_full(1, n_values);
      start_output(n_values);
      wgmma::wait<1>();
      release(0, n_keys);
      ++n_keys;
      softmax(tile, correction);
      wgmma::wait<0>();
      release(1, n_values);
      ++n_values;
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) output[i] *= correction[i / 2 % 2];
      pack_weights();
    }
    wait_full(1, n_values);
    start_output(n_values);
    wgmma::wait<0>();
    release(1, n_values);
    ++n_values;

#pragma unroll
    for (int x = 0; x < 2; ++x) {
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], 1);
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], 2);
      const int r = first + 8 * x;
      if (r >= item.n_rows) continue;
      const float inverse = 1.0f / sums[x];
      const int64_t at = (item.first_row + r) * p.out_stride + static_cast<int64_t>(item.head) * kDim;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
#pragma unroll
        for (int y = 0; y < 2; ++y) {
          store_float(p.out, p.out_dtype, at + 8 * i + (kFormat == KvFormat::int4 ? t + 4 * y : 2 * t + y),
                      output[4 * i + 2 * x + y] * inverse);
        }
      }
    }
  }
}

template <KvFormat kFormat, int kDim>
__global__ void __launch_bounds__(kThreads, 1) attend(const PrefillParams p) {
  using S = Shape<kDim>;
  extern __shared__ unsigned char shared[];
  __shared__ Barriers barriers;
  const uint32_t base = (shared_address(shared) + 1023u) & ~1023u;
  if (threadIdx.x == 0) {
    for (int what = 0; what < 2; ++what) {
      for (int stage = 0; stage < kStages; ++stage) {
        ptx::barrier_init(&barriers.full[what][stage], 128);
        ptx::barrier_init(&barriers.empty[what][stage], 8);
      }
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  wait_for_dependencies();
  launch_dependents();
  if (threadIdx.x < 256) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    produce<kFormat, kDim>(p, static_cast<int>(threadIdx.x) / 128, base + S::kTileBytes, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kFormat, kDim>(p, base, base + S::kTileBytes, barriers);
  }
}

}  // namespace prefill
}  // namespace atom::cuda
