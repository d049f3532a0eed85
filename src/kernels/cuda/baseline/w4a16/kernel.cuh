#pragma once

// W4A16 baseline for up to 64 tokens a tile: y[m, n] = x[m, k] w[n, k]^T, x f16, w INT4 with an fp16 scale a
// row and group of 128 channels, sums f32.
//
// A CTA of 4 warps owns 128 rows of w (32 a warp) and kTokens tokens, and walks the groups of its share of k.
// A stage of its cp.async ring is one group: 128 rows x 64 bytes of weights in their stored order, and
// kTokens x 256 bytes of x. Lane (g, t) of a warp reads, of rows g, g + 8, g + 16, g + 24, the 32 channels
// from 32 t on: `mma.m16n8k16` does not care which channels are its k-th, as long as both operands agree, so
// x is read at the same channels and no weight is ever moved between lanes. A nibble q becomes fp16 by bit
// operations: (q ^ 8) | 0x6400 is 1024 + q + 8 (Kim et al. 2022, "Who Says Elephants Can't Run", section 3),
// two at a time, 16 bits apart: words are stored so that these are neighbours (config.h); the group's scale
// multiplies the weight, rounded to fp16.
//
// CTAs that split k form a cluster and add their sums in ascending order through distributed shared memory.

#include <cstdint>
#include <cuda_fp16.h>

#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/baseline/w4a16/config.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::baseline::w4a16 {

struct Params {
  const uint8_t* w;
  const __half* x;
  void* y;
  int64_t y_stride;
  int m, n, k, groups, splits;
  ResultType result;
  bool accumulate;
  /// Whether y is f32 and may be written four rows of w at a time.
  bool four;
};

constexpr int kThreads = 128;
/// Floats from token to token of the partial sums; 4 more than rows, against bank conflicts.
constexpr int kPitch = kTileRows + 4;

template <int kTokens>
struct Ring {
  static constexpr int kStageBytes = kUnitBytes + kTokens * kGroup * 2;
  /// So few that 3 to 5 CTAs fit an SM (config.h): it takes many warps to unpack as fast as memory delivers.
  static constexpr int kStages = kTokens == 64 ? 3 : 4;
  static constexpr int kSumBytes = kTokens * kPitch * 4;
  static constexpr int kBytes = kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes;
};

/// Copies 16 bytes, of which `valid` are read and the others zero.
__device__ __forceinline__ void copy16(uint32_t to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid)
               : "memory");
}

/// Fragments of the 8 channels of `word`: pairs (0, 1), (2, 3), (4, 5), (6, 7), each times `scale`.
__device__ __forceinline__ void dequantize(uint32_t word, __half2 scale, uint32_t (&out)[4]) {
  const __half2 low_bias = __half2half2(__ushort_as_half(0x6408));   // 1032
  const __half2 high_bias = __half2half2(__ushort_as_half(0xD480));  // -72
  const __half2 sixteenth = __half2half2(__ushort_as_half(0x2C00));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t low = (word & 0x000F000Fu) ^ 0x64086408u, high = (word & 0x00F000F0u) ^ 0x64806480u;
    const __half2 q_low = __hsub2(reinterpret_cast<const __half2&>(low), low_bias);
    const __half2 q_high = __hfma2(reinterpret_cast<const __half2&>(high), sixteenth, high_bias);
    reinterpret_cast<__half2&>(out[2 * i]) = __hmul2(q_low, scale);
    reinterpret_cast<__half2&>(out[2 * i + 1]) = __hmul2(q_high, scale);
    word >>= 8;
  }
}

__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                    uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <class T>
__device__ __forceinline__ void store(T* to, float value, bool accumulate) {
  *to = static_cast<T>(accumulate ? value + static_cast<float>(*to) : value);
}

/// What a thread copies of every stage: four or five pieces of the weights, and the channels of its part of
/// every eighth token of x. Rows of tokens that there are not keep what they hold: it meets no token's sums
/// but theirs.
template <int kTokens>
struct Loader {
  const __half* from;
  uint32_t to;
  int count;
  int part;

  __device__ Loader(const Params& p, int token0) {
    const int tid = static_cast<int>(threadIdx.x), token = tid / 16;
    part = tid % 16;
    from = p.x + static_cast<int64_t>(token0 + token) * p.k + part * 8;
    // In order but for the halves of a line, which odd tokens exchange: copies to scattered places would be
    // fetched 16 bytes at a time.
    to = kUnitBytes + token * 256 + (part ^ (token % 2 * 4)) * 16;
    count = min(max(p.m - token0 - token + 7, 0) / 8, kTokens / 8);
  }

  __device__ __forceinline__ void load_weights(uint32_t stage, const uint8_t* unit) const {
    const int tid = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kValueBytes / 16 / kThreads; ++i) {
      copy16(stage + tid * 16 + i * kThreads * 16, unit + tid * 16 + i * kThreads * 16, 16);
    }
    constexpr int kScaleChunks = (kUnitBytes - kValueBytes) / 16;
    if (tid < kScaleChunks) copy16(stage + kValueBytes + tid * 16, unit + kValueBytes + tid * 16, 16);
  }

  __device__ __forceinline__ void load_x(const Params& p, uint32_t stage, int group) const {
    const bool there = group * kGroup + part * 8 < p.k;
    const __half* x = there ? from + group * kGroup : p.x;
    const int step = there ? 8 * p.k : 0;
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i) {
      if (i < count) copy16(stage + to + i * 8 * 256, x + i * step, there ? 16 : 0);
    }
  }
};

template <int kTokens>
__global__ void __launch_bounds__(kThreads) w4a16_kernel(const Params p) {
  using R = Ring<kTokens>;
  extern __shared__ __align__(128) uint8_t smem[];
  const int tid = static_cast<int>(threadIdx.x), warp = tid / 32, g = tid % 32 / 4, t = tid % 4;
  const int rank = static_cast<int>(blockIdx.x) % p.splits;
  const int tile = static_cast<int>(blockIdx.x) / p.splits, row0 = tile * kTileRows;
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  const int first = p.groups * rank / p.splits, count = p.groups * (rank + 1) / p.splits - first;
  const uint32_t ring = ptx::shared_address(smem);
  const uint8_t* units = p.w + (static_cast<int64_t>(tile) * p.groups + first) * kUnitBytes;
  const Loader<kTokens> loader(p, token0);
  launch_dependents();
  // Nobody is writing the weights: they need not wait for the kernel ahead.
#pragma unroll
  for (int i = 0; i < R::kStages - 1; ++i) {
    if (i < count) loader.load_weights(ring + i * R::kStageBytes, units + i * kUnitBytes);
  }
  wait_for_dependencies();
#pragma unroll
  for (int i = 0; i < R::kStages - 1; ++i) {
    if (i < count) loader.load_x(p, ring + i * R::kStageBytes, first + i);
    ptx::async_commit();
  }
  float acc[2][kTokens / 8][4] = {};
  for (int i = 0; i < count; ++i) {
    ptx::async_wait<R::kStages - 2>();
    __syncthreads();
    const int ahead = i + R::kStages - 1;
    if (ahead < count) {
      const uint32_t stage = ring + ahead % R::kStages * R::kStageBytes;
      loader.load_weights(stage, units + static_cast<int64_t>(ahead) * kUnitBytes);
      loader.load_x(p, stage, first + ahead);
    }
    ptx::async_commit();

    const uint8_t* stage = smem + i % R::kStages * R::kStageBytes;
    // Rows warp * 32 + 8 * r + g.
    uint32_t words[4][4];
    __half2 scales[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = warp * 32 + 8 * r + g;
      const uint4 v = *reinterpret_cast<const uint4*>(stage + row * 64 + t * 16);
      scales[r] = __half2half2(*reinterpret_cast<const __half*>(stage + kValueBytes + row * 2));
      words[r][0] = v.x, words[r][1] = v.y, words[r][2] = v.z, words[r][3] = v.w;
    }
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      uint32_t a[4][4];
#pragma unroll
      for (int r = 0; r < 4; ++r) dequantize(words[r][w], scales[r], a[r]);
      uint32_t b[kTokens / 8][4];
#pragma unroll
      for (int j = 0; j < kTokens / 8; ++j) {
        // Lanes take the parts of their 32 channels in different orders: eight lanes meet eight banks of 16
        // bytes.
        const int place = (4 * t + (w ^ t)) ^ (g % 2 * 4);
        const uint4 v = *reinterpret_cast<const uint4*>(stage + kUnitBytes + (j * 8 + g) * 256 + place * 16);
        b[j][0] = v.x, b[j][1] = v.y, b[j][2] = v.z, b[j][3] = v.w;
      }
      // All sums once, then all again: none waits for itself.
#pragma unroll
      for (int s = 0; s < 4; s += 2) {
#pragma unroll
        for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            mma(acc[h][j], a[2 * h][s], a[2 * h + 1][s], a[2 * h][s + 1], a[2 * h + 1][s + 1], b[j][s],
                b[j][s + 1]);
          }
        }
      }
    }
  }

  // The ring becomes the place of the sums, [kTokens][kPitch].
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  float* sums = reinterpret_cast<float*>(smem);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sums[(j * 8 + 2 * t + c % 2) * kPitch + warp * 32 + h * 16 + c / 2 * 8 + g] = acc[h][j][c];
      }
    }
  }
  if (p.splits > 1) {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
  } else {
    __syncthreads();
  }
  // Every rank finishes its share of the tile, 4 rows at a time; the reads of all ranks are in flight
  // together.
  constexpr int kQuads = kTokens * kTileRows / 4;
  for (int e = kQuads * rank / p.splits + tid; e < kQuads * (rank + 1) / p.splits; e += kThreads) {
    const int token = e / (kTileRows / 4), row = e % (kTileRows / 4) * 4;
    if (token0 + token >= p.m || row0 + row >= p.n) continue;
    const uint32_t at = ring + (token * kPitch + row) * 4;
    float4 parts[kMaxSplits];
#pragma unroll
    for (int other = 0; other < kMaxSplits; ++other) {
      if (other >= p.splits) break;
      uint32_t remote = at;
      if (p.splits > 1) asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(at), "r"(other));
      float4& v = parts[other];
      asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                   : "r"(remote)
                   : "memory");
    }
    float sum[4] = {};
#pragma unroll
    for (int other = 0; other < kMaxSplits; ++other) {
      if (other >= p.splits) break;
      sum[0] += parts[other].x, sum[1] += parts[other].y, sum[2] += parts[other].z, sum[3] += parts[other].w;
    }
    const int64_t to = (token0 + token) * p.y_stride + row0 + row;
    if (p.four) {
      float4* y = reinterpret_cast<float4*>(static_cast<float*>(p.y) + to);
      float4 v = make_float4(sum[0], sum[1], sum[2], sum[3]);
      if (p.accumulate) {
        const float4 had = *y;
        v = make_float4(v.x + had.x, v.y + had.y, v.z + had.z, v.w + had.w);
      }
      *y = v;
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row0 + row + i >= p.n) break;
      if (p.result == ResultType::f32) {
        store(static_cast<float*>(p.y) + to + i, sum[i], p.accumulate);
      } else {
        store(static_cast<__half*>(p.y) + to + i, sum[i], p.accumulate);
      }
    }
  }
  // Nobody leaves while others may still read its sums.
  if (p.splits > 1) {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
  }
}

}  // namespace atom::cuda::baseline::w4a16
