#pragma once

#include <cstdint>

#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/attention/prefill_items.cuh"
#include "kernels/cuda/attention/wgmma_f16.cuh"

/// The producers of the prefill kernel: one warpgroup for keys, one for values. They gather tiles of 128 rows
/// from their pages and lay them out as fp16 in the form that wgmma reads.
///
/// A quantized cache: a warp has 32 rows of every tile. It copies those of the next tile to a raw stage that
/// only it reads (cp.async, no barrier), then widens those that have arrived, a row a lane. fp16: cp.async
/// straight into the stage. Both run ahead of the consumers, over the ends of items too.
namespace atom::cuda::prefill {

using namespace fragments;

__device__ inline __half2 as_half2(uint32_t x) {
  return *reinterpret_cast<const __half2*>(&x);
}
__device__ inline uint32_t as_word(__half2 x) {
  return *reinterpret_cast<const uint32_t*>(&x);
}
/// word & mask | bits, in one instruction.
__device__ inline __half2 masked(uint32_t word, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(r) : "r"(word), "r"(mask), "r"(bits));
  return as_half2(r);
}

/// Channels 0 4 1 5 2 6 3 7 of an int4 word, or the 8 of two int8 words, as fp16: q * scale + minimum.
__device__ inline uint4 widen_int4(uint32_t word, __half2 scale, __half2 minimum) {
  // 1024 + n in fp16 is 0x6400 | n; 1024 + 16 n likewise.
  constexpr uint32_t kBase = 0x64006400u;
  const __half2 base = as_half2(kBase);
  const __half2 sixteenth = as_half2(0x2C002C00u);
  const __half2 minus_64 = as_half2(0xD400D400u);
  const uint32_t upper = word >> 8;
  const __half2 n0 = __hsub2(masked(word, 0x000F000Fu, kBase), base);
  const __half2 n1 = __hfma2(masked(word, 0x00F000F0u, kBase), sixteenth, minus_64);
  const __half2 n2 = __hsub2(masked(upper, 0x000F000Fu, kBase), base);
  const __half2 n3 = __hfma2(masked(upper, 0x00F000F0u, kBase), sixteenth, minus_64);
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

/// Walks through the tiles of this block's items. `row` is where key `offset` of the current tile lies in the
/// cache; its block number is loaded when the tile becomes the current one, a tile before it is needed.
class Cursor {
 public:
  __device__ Cursor(const PrefillParams& p, int offset)
      : p_(p), offset_(offset), item_(next_item(p, 0)), kv_head_(item_.head / p.group) {
    look_up();
  }

  /// Whether there is a current tile.
  __device__ bool more() const { return item_.n_tiles > 0; }
  /// Keys of the current tile and on.
  __device__ int n_keys() const { return item_.end - tile_ * kKeys; }
  /// Row of key `offset` of the tile in the cache; of any key where the sequence has ended.
  __device__ uint32_t row() const {
    const auto heads = static_cast<uint32_t>(p_.cache.n_kv_heads);
    const auto in_block = static_cast<uint32_t>(key_ & ((1 << p_.block_shift) - 1));
    return ((static_cast<uint32_t>(block_) * heads + static_cast<uint32_t>(kv_head_)) << p_.block_shift) +
           in_block;
  }
  __device__ void advance() {
    if (++tile_ >= item_.n_tiles) {
      tile_ = 0;
      item_ = next_item(p_, item_.round + 1);
      kv_head_ = item_.head / p_.group;
    }
    look_up();
  }

 private:
  __device__ void look_up() {
    key_ = tile_ * kKeys + offset_;
    block_ = 0;
    if (key_ < item_.end) block_ = __ldg(item_.blocks + (key_ >> p_.block_shift));
  }

  const PrefillParams& p_;
  int offset_;
  Item item_;
  int kv_head_;
  int tile_ = 0;
  int key_ = 0;
  int block_ = 0;
};

/// What a producer knows of the stages that it fills.
template <KvFormat kFormat, int kDim>
struct Stages {
  using S = Shape<kFormat, kDim>;
  uint32_t tiles;
  uint64_t* full;
  uint64_t* empty;

  __device__ uint32_t address(int stage) const {
    return tiles + static_cast<uint32_t>(stage * S::kTileBytes);
  }
  __device__ void wait_empty(const Ring<S::kStages>& ring) const {
    ptx::barrier_wait(&empty[ring.stage], ring.phase ^ 1);
  }
  /// Announces a stage that this warp has written.
  __device__ void finish(int stage) const {
    wgmma::fence_stores();
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(&full[stage]);
  }
};

template <KvFormat kFormat, int kDim>
__device__ inline void produce_quantized(const PrefillParams& p, const std::byte* rows,
                                         const uint16_t* params, uint32_t raw,
                                         const Stages<kFormat, kDim>& stages) {
  using S = Shape<kFormat, kDim>;
  constexpr int kWords = kDim * bits_of(kFormat) / 128;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int lane = thread % 32;
  // 16-byte word i of row r of this warp lies at raw_offset(r, i): no two of 8 rows in the same banks.
  const auto raw_offset = [](int row, int word) {
    return static_cast<uint32_t>((row * kWords + (word ^ (row / (8 / kWords) % kWords))) * 16);
  };
  raw += static_cast<uint32_t>(thread / 32 * 32 * kWords * 16);
  Cursor cursor(p, thread);
  // Copies the current tile, kWords lanes a row, and returns scale and minimum of this lane's row.
  constexpr int kRowsPerCopy = 32 / kWords;
  const int copy_row = lane / kWords;
  const std::byte* const from = rows + lane % kWords * 16;
  const auto copy = [&](int raw_stage) {
    const int n_keys = cursor.more() ? cursor.n_keys() - thread / 32 * 32 : 0;
    const uint32_t row = cursor.row();
    const uint32_t to = raw + static_cast<uint32_t>(raw_stage * S::kRawBytes);
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const int r = i * kRowsPerCopy + copy_row;
      const uint32_t place = __shfl_sync(0xFFFFFFFFu, row, r);
      copy_16(to + raw_offset(r, lane % kWords), from + static_cast<uint64_t>(place) * (kWords * 16),
              r < n_keys);
    }
    async_commit();
    return lane < n_keys ? __ldg(reinterpret_cast<const uint32_t*>(params) + row) : 0u;
  };
  if (!cursor.more()) return;
  Ring<S::kStages> ring;
  int raw_stage = 0;
  uint32_t pair = copy(0);
  cursor.advance();
  for (bool more = true; more;) {
    more = cursor.more();
    const uint32_t next_pair = copy(raw_stage ^ 1);
    if (more) cursor.advance();
    async_wait<1>();
    __syncwarp();
    const uint32_t arrived = raw + static_cast<uint32_t>(raw_stage * S::kRawBytes);
    const __half2 scale = __low2half2(as_half2(pair));
    const __half2 minimum = __high2half2(as_half2(pair));
    const uint32_t tile = stages.address(ring.stage);
    stages.wait_empty(ring);
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const uint4 word = ptx::load_vector(arrived + raw_offset(lane, i));
      const uint32_t w[4] = {word.x, word.y, word.z, word.w};
      if constexpr (kFormat == KvFormat::int4) {
#pragma unroll
        for (int k = 0; k < 4; ++k)
          store_16(tile + chunk_offset(thread, 4 * i + k), widen_int4(w[k], scale, minimum));
      } else {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          store_16(tile + chunk_offset(thread, 2 * i + k),
                   widen_int8(w[2 * k], w[2 * k + 1], scale, minimum));
        }
      }
    }
    stages.finish(ring.stage);
    ring.advance();
    raw_stage ^= 1;
    pair = next_pair;
  }
  async_wait<0>();
}

template <int kDim>
__device__ inline void produce_f16(const PrefillParams& p, const std::byte* rows,
                                   const Stages<KvFormat::f16, kDim>& stages) {
  using S = Shape<KvFormat::f16, kDim>;
  constexpr int kChunks = kDim / 8;
  constexpr int kRowsPerCopy = 128 / kChunks;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  // Lane l has the place of keys 8 (l % 16) and on of a tile.
  Cursor cursor(p, thread % 16 * 8);
  Ring<S::kStages> ring;
  int previous = -1;
  while (cursor.more()) {
    const uint32_t places = cursor.row();
    const int n_keys = cursor.n_keys();
    cursor.advance();
    stages.wait_empty(ring);
    const uint32_t tile = stages.address(ring.stage);
#pragma unroll
    for (int i = 0; i < kKeys / kRowsPerCopy; ++i) {
      const int r = i * kRowsPerCopy + thread / kChunks;
      const uint32_t place = __shfl_sync(0xFFFFFFFFu, places, r / 8) + static_cast<uint32_t>(r % 8);
      const bool valid = r < n_keys;
      copy_16(tile + chunk_offset(r, thread % kChunks),
              rows + static_cast<uint64_t>(valid ? place : 0) * (kDim * 2) + thread % kChunks * 16, valid);
    }
    async_commit();
    // The tile before has arrived.
    if (previous >= 0) {
      async_wait<1>();
      stages.finish(previous);
    }
    previous = ring.stage;
    ring.advance();
  }
  if (previous < 0) return;
  async_wait<0>();
  stages.finish(previous);
}

/// Fills the stages of keys (what = 0) or of values (1).
template <KvFormat kFormat, int kDim>
__device__ inline void produce(const PrefillParams& p, int what, uint32_t shared,
                               Barriers<Shape<kFormat, kDim>::kStages>& barriers) {
  using S = Shape<kFormat, kDim>;
  const std::byte* const rows = what == 0 ? p.cache.keys : p.cache.values;
  const Stages<kFormat, kDim> stages{
      shared + static_cast<uint32_t>(S::kStagesAt + what * S::kStages * S::kTileBytes), barriers.full[what],
      barriers.empty[what]};
  if constexpr (S::kQuantized) {
    produce_quantized<kFormat, kDim>(
        p, rows, what == 0 ? p.cache.key_params : p.cache.value_params,
        shared + static_cast<uint32_t>(S::kRawAt + what * kRawStages * S::kRawBytes), stages);
  } else {
    produce_f16<kDim>(p, rows, stages);
  }
}

}  // namespace atom::cuda::prefill
