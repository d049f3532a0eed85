#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/stream_config.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"

/// W4A4 / W4A8 GEMM for 1 to 8 tokens: Y[tokens, n] = X · W^T, limited by reading W once.
///
/// A CTA owns a range of 16-row blocks of W for all of K and handles them in passes of up to kRows blocks.
/// Each of its warps is a stream of its own: it copies its share of (pass, unit) pieces, and X of those
/// units, into its own ring in shared memory (cp.async), unpacks them to 8-bit fragments in registers (a
/// nibble as 16 q, the 16 taken from the sum) and multiplies by `mma.sync` m16n8k32, W being the A operand.
/// No warp waits for another but at the end of a pass. The units of a pass go round the warps, whose int32
/// sums are added at its end. Weights do not depend on the kernel before: the rings are filled before the
/// dependency wait.
namespace atom::cuda {

struct StreamArguments {
  const uint8_t* weight;
  const float* row_units;
  const float* row_outliers;  ///< Multipliers
  const int8_t* x;
  const float* x_scales;
  void* y;
  int64_t y_stride;
  int n, tokens, token_stride, groups, units, row_blocks;
  bool accumulate;
};

inline constexpr int kRowBlock = 16;
inline constexpr int kRowBlockValues = kRowBlock * 64;

/// Shared memory of one CTA.
template <int kWarps, int kRows, int kSlots>
struct StreamShape {
  static constexpr int kTokens = kMaxStreamTokens;
  // Offsets in a slot: of a byte a row, or of outlier units a float, its multiplier; of X.
  static constexpr int kMultipliers = kRows * kRowBlockValues;
  static constexpr int kX = kMultipliers + kRows * kRowBlock * 4;
  static constexpr int kSlotBytes = kX + kTokens * kUnitChannels;
  static constexpr int kPitch = kRows * kRowBlock + 4;
  static constexpr int shared(int tokens) {
    const int partial = 2 * kWarps * (tokens < kTokens ? tokens : kTokens) * kPitch * 4;
    return kWarps * kSlots * kSlotBytes + partial;
  }
};

__device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// kWarps a CTA, kRows row blocks a pass, kSlots pieces in a warp's ring.
template <typename Y, int kWarps, int kRows, int kSlots>
__global__ void __launch_bounds__(kWarps * 32)
    gemm_w4a4_stream_kernel(const __grid_constant__ StreamArguments p) {
  using Shape = StreamShape<kWarps, kRows, kSlots>;
  constexpr int kTokens = Shape::kTokens;  // the N of the mma
  extern __shared__ __align__(1024) uint8_t shared[];
  __shared__ uint64_t written[2];
  __shared__ float x_units[kTokens];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int m0 = blockIdx.y * kTokens;
  const int begin = static_cast<int>(static_cast<int64_t>(p.row_blocks) * blockIdx.x / gridDim.x);
  const int end = static_cast<int>(static_cast<int64_t>(p.row_blocks) * (blockIdx.x + 1) / gridDim.x);
  // Passes of equal size. The units of all passes, one behind the other, go round the warps.
  const int passes = (end - begin + kRows - 1) / kRows;
  const int pass_rows = (end - begin + passes - 1) / passes;
  launch_dependents();
  if (threadIdx.x == 0) {
    ptx::barrier_init(&written[0], kWarps), ptx::barrier_init(&written[1], kWarps);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  uint8_t* const ring = shared + warp * (kSlots * Shape::kSlotBytes);

  // The piece that is copied next.
  struct {
    int row, unit;
    uint32_t offset[kRows];  // of 16 bytes of the row blocks in their units
    uint32_t multipliers_offset;
  } ahead;
  const auto locate = [&](int row) {
    ahead.row = row;
    // Where a row block has its half of a unit.
    const auto half_start = [&](int block) {
      return static_cast<uint32_t>(block / 8) * p.units * kUnitBytes + block / 4 % 2 * kHalfUnitBytes;
    };
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      ahead.offset[r] = half_start(row + r) + (row + r) % 4 * kRowBlockValues + lane * 16;
    const int block = row + lane;
    ahead.multipliers_offset = half_start(block) + kHalfUnitValueBytes + block % 4 * kRowBlock;
  };
  const auto copied_all = [&] { return ahead.row >= end; };
  const auto settle = [&] {
    while (ahead.unit >= p.units && ahead.row < end) ahead.unit -= p.units, locate(ahead.row + pass_rows);
  };
  const auto advance = [&] {
    ahead.unit += kWarps;
    if (ahead.unit >= p.units) settle();
  };
  const uint64_t policy = ptx::policy_evict_first();
  const uint32_t ring_address = ptx::shared_address(ring);
  const auto copy_weights = [&](int slot) {
    const uint8_t* unit = p.weight + static_cast<int64_t>(ahead.unit) * kUnitBytes;
    const uint32_t to = ring_address + slot * Shape::kSlotBytes + lane * 16;
    const int rows = min(pass_rows, end - ahead.row);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      ptx::async_copy(to + r * kRowBlockValues, unit + ahead.offset[r], policy);
      ptx::async_copy(to + r * kRowBlockValues + 512, unit + ahead.offset[r] + 512, policy);
    }
    if (ahead.unit < p.groups) {
      if (lane < rows) ptx::async_copy(to + Shape::kMultipliers, unit + ahead.multipliers_offset, policy);
    } else if (lane < 4 * rows) {
      ptx::async_copy(to + Shape::kMultipliers, p.row_outliers + ahead.row * kRowBlock + lane * 4, policy);
    }
  };
  const uint64_t keep = ptx::policy_evict_last();
  const int x_rows = min(kTokens, p.tokens - m0);
  const auto copy_x = [&](int slot, int unit) {
    const int block = unit < p.groups ? unit : p.groups + (unit - p.groups) / 2;
    const int8_t* x = p.x + (static_cast<int64_t>(block) * p.token_stride + m0) * kUnitChannels + lane * 16;
    const uint32_t to = ring_address + slot * Shape::kSlotBytes + lane * 16;
#pragma unroll
    for (int i = 0; i < kTokens / 4; ++i)
      if (i * 4 + lane / 8 < x_rows) ptx::async_copy(to + Shape::kX + i * 512, x + i * 512, keep);
  };

  // Cold otherwise when the sums are complete.
  for (int i = threadIdx.x * 32; i < (end - begin) * kRowBlock; i += kWarps * 32 * 32)
    ptx::prefetch(p.row_units + begin * kRowBlock + i);
  ahead.unit = warp;
  locate(begin);
  settle();
  for (int i = 0; i < kSlots; ++i) {
    if (!copied_all()) copy_weights(i), advance();
    ptx::async_commit();
  }
  wait_for_dependencies();
  {
    int row = begin, unit = warp;
    for (int i = 0; i < kSlots; ++i, unit += kWarps) {
      while (unit >= p.units && row < end) unit -= p.units, row += pass_rows;
      if (row < end) copy_x(i, unit);
      ptx::async_commit();
    }
  }

  // Of tokens that are padding: anything.
  int x_outliers[2];
#pragma unroll
  for (int c = 0; c < 2; ++c) x_outliers[c] = static_cast<int>(p.x_scales[p.token_stride + m0 + 2 * t + c]);
  if (threadIdx.x < kTokens) x_units[threadIdx.x] = p.x_scales[m0 + threadIdx.x];

  Y* const y = static_cast<Y*>(p.y);
  const auto store = [&](int token, int row, float sum) {
    if (token >= p.tokens || row >= p.n) return;
    store_one(y + token * p.y_stride + row, sum, p.accumulate);
  };

  int slot = 0;
  int acc[kRows][4];
  int outliers[kRows][4];
  // Address bits of X's fragments: token g, channels 4 t ... 4 t + 3 of a chunk of 16.
  const int x_offset = g * kUnitChannels + g * 16 + t * 4;
  const auto step = [&]<int R>(int unit) {
    // The copies of this slot are older than the latest kSlots - 1 groups.
    ptx::async_wait<kSlots - 1>();
    __syncwarp();
    const uint8_t* const in = ring + slot * Shape::kSlotBytes;
    uint32_t words[R][8], x[8];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const uint4* from = reinterpret_cast<const uint4*>(in + r * kRowBlockValues) + lane;
      *reinterpret_cast<uint4*>(words[r]) = from[0], *reinterpret_cast<uint4*>(words[r] + 4) = from[32];
    }
    const int flip = unit < p.groups ? 0 : (unit - p.groups) % 2 * 64;
#pragma unroll
    for (int c = 0; c < 8; ++c)
      x[c] = *reinterpret_cast<const uint32_t*>(in + Shape::kX + (x_offset ^ (c * 16) ^ flip));
    int w[R][2];
    if (unit < p.groups) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const uint32_t both =
            *reinterpret_cast<const uint16_t*>(in + Shape::kMultipliers + r * kRowBlock + g * 2);
        w[r][0] = static_cast<int>(both & 0xFF), w[r][1] = static_cast<int>(both >> 8);
      }
    } else {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          w[r][c] = static_cast<int>(
              *reinterpret_cast<const float*>(in + Shape::kMultipliers + (r * kRowBlock + g + c * 8) * 4));
    }
    __syncwarp();
    if (!copied_all()) {
      copy_weights(slot), copy_x(slot, ahead.unit);
      advance();
    }
    ptx::async_commit();
    if (++slot == kSlots) slot = 0;

    if (unit < p.groups) {
      int sum[kRows][4];
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] = 0;
#pragma unroll
      for (int s = 0; s < 4; ++s)
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const uint32_t a[4] = {(words[r][2 * s] << 4) & 0xF0F0F0F0u, words[r][2 * s] & 0xF0F0F0F0u,
                                 (words[r][2 * s + 1] << 4) & 0xF0F0F0F0u, words[r][2 * s + 1] & 0xF0F0F0F0u};
          mma_s8(sum[r], a, x[2 * s], x[2 * s + 1]);
        }
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) acc[r][c] += (sum[r][c] >> 4) * w[r][c / 2];
    } else {
      // All of the warp's outliers are one sum.
      if (unit - kWarps < p.groups) {
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) outliers[r][c] = 0;
      }
#pragma unroll
      for (int s = 0; s < 2; ++s)
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const uint32_t a[4] = {words[r][4 * s], words[r][4 * s + 1], words[r][4 * s + 2],
                                 words[r][4 * s + 3]};
          mma_s8(outliers[r], a, x[2 * s], x[2 * s + 1]);
        }
      if (unit + kWarps >= p.units) {
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) acc[r][c] += outliers[r][c] * (w[r][c / 2] * x_outliers[c % 2]);
      }
    }
  };
  // The sums of pass q, of kWarps warps, lie in half q % 2 of this buffer.
  const int half = kWarps * x_rows * Shape::kPitch;
  int* const partial = reinterpret_cast<int*>(shared + kWarps * kSlots * Shape::kSlotBytes);
  const auto reduce = [&](int pass) {
    const int row = begin + pass * pass_rows, columns = min(pass_rows, end - row) * kRowBlock;
    const auto row_unit = [&](int e) { return p.row_units[row * kRowBlock + e % columns]; };
    float w = row_unit(threadIdx.x);
    ptx::barrier_wait(&written[pass % 2], pass / 2 % 2);
    const int* from = partial + pass % 2 * half;
    for (int e = threadIdx.x; e < x_rows * columns; e += kWarps * 32) {
      const int token = e / columns, column = e % columns;
      int total = 0;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) total += from[(i * x_rows + token) * Shape::kPitch + column];
      store(m0 + token, row * kRowBlock + column, static_cast<float>(total) * (x_units[token] * w));
      w = row_unit(e + kWarps * 32);
    }
  };
  int unit = warp;
  const auto all_units = [&]<int R>(int pass, int row) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) acc[r][c] = 0;
#pragma unroll 1
    for (; unit < p.units; unit += kWarps) step.template operator()<R>(unit);
    unit -= p.units;
    // A warp adds up the pass before only now, when the others have most likely finished it too; so none
    // waits. Having waited for that pass, it knows that all have read the one before, whose half it
    // overwrites.
    if (pass > 0) reduce(pass - 1);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int token = 2 * t + c % 2;
        if (token < x_rows)
          partial[pass % 2 * half + (warp * x_rows + token) * Shape::kPitch + r * kRowBlock + g + c / 2 * 8] =
              acc[r][c];
      }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&written[pass % 2]);
  };
  int pass = 0;
#pragma unroll 1
  for (int row = begin; row < end; row += pass_rows, ++pass) {
    const int rows = min(pass_rows, end - row);
    if (rows == 1) all_units.template operator()<1>(pass, row);
    if constexpr (kRows > 1) {
      if (rows == 2) all_units.template operator()<2>(pass, row);
    }
    if constexpr (kRows > 2) {
      if (rows == 3) all_units.template operator()<3>(pass, row);
    }
    if constexpr (kRows > 3) {
      if (rows == 4) all_units.template operator()<4>(pass, row);
    }
  }
  reduce(pass - 1);
}

}  // namespace atom::cuda
