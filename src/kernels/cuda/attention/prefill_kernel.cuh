#pragma once

#include <cstdint>

#include "kernels/cuda/attention/fragments.cuh"
#include "kernels/cuda/attention/prefill_items.cuh"
#include "kernels/cuda/attention/prefill_producer.cuh"
#include "kernels/cuda/attention/prefill_rows.cuh"
#include "kernels/cuda/attention/wgmma_f16.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/kv_view.h"

/// Attention of many rows a sequence (prefill, whole or in chunks) over the paged cache, causal: online
/// softmax in the form of FlashAttention-3 (Shah et al. 2024). Fast: fp16 operands, sums in any order.
///
/// A block has a tile of 128 rows of one query head and visits the keys in tiles of 128. Two warpgroups
/// produce, one keys and one values (prefill_producer.cuh). Two warpgroups consume, 64 rows each: they take
/// turns at the tensor cores, and while one's S of the next tile and P V of this one run, the other has its
/// softmax. Blocks are persistent; the longest row tiles come first, in alternating order, so that blocks end
/// together.
///
///   S [64, 128] = Q K^T (shared, shared);  P = 2^(c S - m);  O [64, head_dim] += P V (registers, shared)
///
/// m only has to be near the maximum: it moves when a score exceeds it by kSlack. int4 words leave unpacking
/// as channels 0 4 1 5 2 6 3 7: Q has them in that order too, and the output is put back.
namespace atom::cuda::prefill {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kSlack = 8.0f;
constexpr float kNoMaximum = -1e30f;

/// Barriers of the hardware: of the warps of a consumer, and its turn at the tensor cores.
constexpr int kOwnBarrier = 1;
constexpr int kTurnBarrier = 3;

template <KvFormat kFormat, int kDim>
__device__ inline void consume(const PrefillParams& p, uint32_t shared,
                               Barriers<Shape<kFormat, kDim>::kStages>& barriers) {
  using S = Shape<kFormat, kDim>;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  // The same in every lane, and the compiler is to know it.
  const int consumer = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 128 - 2, 0);
  const int lane = thread % 32;
  const int t = lane % 4;
  const float c = p.scale * kLog2e;
  Ring<S::kStages> keys;
  Ring<S::kStages> values;
  const uint32_t own_queries = shared + static_cast<uint32_t>(consumer * 64 * 128);
  // Addresses in descriptors are in units of 16 bytes.
  const uint64_t query_operand = wgmma::descriptor(own_queries);
  const uint64_t key_operand = wgmma::descriptor(shared + S::kStagesAt);
  const uint64_t value_operand =
      wgmma::descriptor(shared + S::kStagesAt + S::kStages * S::kTileBytes, S::kPartBytes);
  const auto wait_full = [&](int what, const Ring<S::kStages>& ring) {
    ptx::barrier_wait(&barriers.full[what][ring.stage], ring.phase);
  };
  const auto release = [&](int what, Ring<S::kStages>& ring) {
    if (lane == 0) ptx::barrier_arrive(&barriers.empty[what][ring.stage]);
    ring.advance();
  };
  const auto take_turn = [&]() { ptx::named_barrier(kTurnBarrier + consumer, 256); };
  const auto give_turn = [&]() { ptx::named_arrive(kTurnBarrier + (consumer ^ 1), 256); };
  if (consumer == 1) give_turn();

  Item item = next_item(p, 0);
  while (item.n_tiles > 0) {
    // Once all warps of this warpgroup are done with the last queries.
    ptx::named_barrier(kOwnBarrier + consumer, 128);
    load_queries<kFormat, kDim>(p, item, consumer * 64, thread, shared);
    wgmma::fence_stores();
    ptx::named_barrier(kOwnBarrier + consumer, 128);

    // Rows of this thread: first and first + 8; the keys that they see.
    const int first = consumer * 64 + thread / 32 * 16 + lane / 4;
    const int limits[2] = {item.position + min(first, item.n_rows - 1) + 1,
                           item.position + min(first + 8, item.n_rows - 1) + 1};
    const int full_tiles = (item.position + min(consumer * 64, item.n_rows - 1) + 1) / kKeys;
    float maximum[2] = {kNoMaximum, kNoMaximum};
    float sums[2] = {0.0f, 0.0f};
    float correction[2];
    float output[kDim / 2];
#pragma unroll
    for (float& x : output) x = 0.0f;
    float scores[64];
    uint32_t weights[8][4];

    const auto start_scores = [&]() {
      const uint64_t stage = key_operand + static_cast<uint32_t>(keys.stage * (S::kTileBytes / 16));
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {
        const auto at = static_cast<uint32_t>((step / 4 * S::kPartBytes + step % 4 * 32) / 16);
        wgmma::multiply_shared(scores, query_operand + at, stage + at, step > 0);
      }
      wgmma::commit();
    };
    const auto start_output = [&]() {
      const uint64_t stage = value_operand + static_cast<uint32_t>(values.stage * (S::kTileBytes / 16));
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step) {
        wgmma::multiply_transposed(output, weights[step], stage + static_cast<uint32_t>(step * 2048 / 16));
      }
      wgmma::commit();
    };
    // Scores become weights (unpacked, in place). Returns whether earlier sums shrink by `correction`.
    const auto softmax = [&](int tile) {
      if (tile >= full_tiles) {
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          const int key = tile * kKeys + i / 4 * 8 + 2 * t + i % 2;
          if (key >= limits[i / 2 % 2]) scores[i] = -INFINITY;
        }
      }
      float largest[2];
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        float tops[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) tops[i] = fmaxf(scores[4 * i + 2 * x], scores[4 * i + 2 * x + 1]);
#pragma unroll
        for (int i = 4; i < 16; ++i) {
          tops[i % 4] = fmaxf(tops[i % 4], fmaxf(scores[4 * i + 2 * x], scores[4 * i + 2 * x + 1]));
        }
        largest[x] = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3])) * c;
      }
      const bool grows =
          __any_sync(0xFFFFFFFFu, largest[0] > maximum[0] + kSlack || largest[1] > maximum[1] + kSlack);
      if (grows) {
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          largest[x] = fmaxf(largest[x], __shfl_xor_sync(0xFFFFFFFFu, largest[x], 1));
          largest[x] = fmaxf(largest[x], __shfl_xor_sync(0xFFFFFFFFu, largest[x], 2));
          const float moved = fmaxf(largest[x], maximum[x]);
          correction[x] = exp2_fast(maximum[x] - moved);
          maximum[x] = moved;
          sums[x] *= correction[x];
        }
      }
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        float parts[2] = {0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < 16; ++i) {
#pragma unroll
          for (int y = 0; y < 2; ++y) {
            float& s = scores[4 * i + 2 * x + y];
            s = exp2_fast(fmaf(s, c, -maximum[x]));
            parts[y] += s;
          }
        }
        sums[x] += parts[0] + parts[1];
      }
      return grows;
    };
    const auto pack_weights = [&]() {
#pragma unroll
      for (int step = 0; step < 8; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          weights[step][i] = pack(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
      }
    };

    wait_full(0, keys);
    take_turn();
    start_scores();
    give_turn();
    wgmma::wait<0>(scores);
    release(0, keys);
    softmax(0);
    pack_weights();
    for (int tile = 1; tile < item.n_tiles; ++tile) {
      wait_full(0, keys);
      take_turn();
      start_scores();
      wait_full(1, values);
      start_output();
      give_turn();
      wgmma::wait<1>(scores);
      release(0, keys);
      const bool shrinks = softmax(tile);
      wgmma::wait<0>(output);
      release(1, values);
      if (shrinks) {
#pragma unroll
        for (int i = 0; i < kDim / 2; ++i) output[i] *= correction[i / 2 % 2];
      }
      pack_weights();
    }
    wait_full(1, values);
    start_output();
    const Item next = next_item(p, item.round + 1);
    prefetch_queries<kDim>(p, next, consumer * 64, thread);
    wgmma::wait<0>(output);
    release(1, values);

#pragma unroll
    for (int x = 0; x < 2; ++x) {
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], 1);
      sums[x] += __shfl_xor_sync(0xFFFFFFFFu, sums[x], 2);
      gather_channels<kFormat, kDim>(output, x, t);
    }
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      store_row<kFormat, kDim>(p, item, first + 8 * x, t, __fdividef(1.0f, sums[x]), output, x);
    }
    item = next;
  }
  // The other one's last turn is for nobody.
  if (consumer == 0) take_turn();
}

template <KvFormat kFormat, int kDim>
__global__ void __launch_bounds__(kThreads, 1) attend(const PrefillParams p) {
  using S = Shape<kFormat, kDim>;
  extern __shared__ unsigned char dynamic_shared[];
  __shared__ Barriers<S::kStages> barriers;
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023u) & ~1023u;
  if (threadIdx.x == 0) {
    for (int what = 0; what < 2; ++what) {
      for (int stage = 0; stage < S::kStages; ++stage) {
        ptx::barrier_init(&barriers.full[what][stage], 4);
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
    produce<kFormat, kDim>(p, static_cast<int>(threadIdx.x) / 128, shared, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kFormat, kDim>(p, shared, barriers);
  }
}

}  // namespace atom::cuda::prefill
