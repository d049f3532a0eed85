#pragma once

// (RMSNorm +) gather + quantize of many tokens: row_quantize.cuh says what is computed.
// Persistent blocks, several on a multiprocessor. A ring of slots in shared memory, a slot one or two tokens'
// rows, goes round three kinds of warps, which hand it on by mbarriers and never wait for each other
// otherwise: one copies rows into free slots (bulk copies, as many in flight as slots are free); one walks
// the 16 chains of the sums of squares, two tokens at a time in its 32 lanes (the contract's order: hidden /
// 16 dependent fma); the others gather and quantize all tokens of a slot at once, so that they exchange their
// largest scales once a slot. So neither loads nor chains are waited for as long as the ring has slots. Rows
// are 64 bytes apart modulo 128: the two chains read different banks.
// Source: Atom, section 4.3; docs/numerics.md.

#include "kernels/cuda/fused/row_quantize.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::fused {

template <class In, bool kNorm, int kTokens>
__global__ void __launch_bounds__(max_stream_threads(kTokens))
    row_stream_kernel(const RowQuantize a, const StreamConfig ring) {
  extern __shared__ __align__(128) unsigned char slots[];
  __shared__ uint64_t full[kMaxSlots], walked[kMaxSlots], empty[kMaxSlots];
  __shared__ float factors[kMaxSlots][2];
  __shared__ Shares<kTokens> shares[2];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = warp_index();
  const int quantizers = ring.warps;
  launch_dependents();
  if (threadIdx.x == 0) {
    for (int s = 0; s < ring.slots; ++s) {
      ptx::barrier_init(&full[s], 1);
      ptx::barrier_init(&walked[s], 1);
      ptx::barrier_init(&empty[s], static_cast<uint32_t>(quantizers));
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();

  const int tiles = (a.tokens + kTokens - 1) / kTokens;
  const auto tokens_of = [&](int tile) { return min(kTokens, a.tokens - tile * kTokens); };
  const auto row = [&](int slot, int i) { return slots + (slot * kTokens + i) * ring.pitch; };
  // Calls body(tile, slot, parity) for the block's tiles.
  const auto for_tiles = [&](const auto& body) {
    int slot = 0;
    uint32_t parity = 0;
#pragma unroll 1
    for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
      body(tile, slot, parity);
      if (++slot == ring.slots) slot = 0, parity ^= 1;
    }
  };

  if (warp == quantizers) {
    if (lane != 0) return;
    wait_for_dependencies();
    const auto bytes = static_cast<uint32_t>(copied_bytes<In>(a.k));
    for_tiles([&](int tile, int slot, uint32_t parity) {
      // The first round finds every slot free: the phase before the first counts as complete.
      ptx::barrier_wait(&empty[slot], parity ^ 1);
      const int count = tokens_of(tile);
      ptx::barrier_arrive_expect(&full[slot], bytes * static_cast<uint32_t>(count));
      for (int i = 0; i < count; ++i) {
        const int64_t token = tile * kTokens + i;
        ptx::bulk_load(row(slot, i), static_cast<const In*>(a.x) + token * a.stride, bytes, &full[slot]);
      }
    });
  } else if (warp > quantizers) {
    for_tiles([&](int tile, int slot, uint32_t parity) {
      ptx::barrier_wait(&full[slot], parity);
      // Where there is no second token, both halves walk the first.
      const int mine = lane / 16 < tokens_of(tile) ? lane / 16 : 0;
      const float sum = sum_of_squares(reinterpret_cast<const In*>(row(slot, mine)), a.k);
      if (lane % 16 == 0) factors[slot][lane / 16] = numerics::inverse_rms(sum, a.k, a.eps);
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(&walked[slot]);
    });
  } else {
    const WarpUnits<In, kNorm, kStreamUnits> units(a, warp * kStreamUnits);
    wait_for_dependencies();
    int turn = 0;
    for_tiles([&](int tile, int slot, uint32_t parity) {
      ptx::barrier_wait(&full[slot], parity);
      if constexpr (kNorm) ptx::barrier_wait(&walked[slot], parity);
      // Where there is no second token, the first is computed twice.
      const int last = tokens_of(tile) - 1;
      Four y[kTokens][kStreamUnits];
      float factor[kTokens];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        units.gather(row(slot, min(t, last)), y[t]);
        factor[t] = kNorm ? factors[slot][min(t, last)] : 1.0f;
      }
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(&empty[slot]);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) units.normalize(y[t], factor[t]);
      quantize_units(a, tile * kTokens, a.tokens, warp * kStreamUnits, y, shares[turn], quantizers);
      turn ^= 1;
    });
  }
}

}  // namespace atom::cuda::fused
