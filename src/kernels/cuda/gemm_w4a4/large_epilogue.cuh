#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/large_device.cuh"
#include "kernels/cuda/gemm_w4a4/large_tile.cuh"

/// From int32 sums in registers to Y, for the GEMM for many tokens (large_kernel.cuh). A warp has 16 rows of
/// W, which Y wants next to each other: pieces of 32 or 16 tokens go through shared memory, of each warp on
/// its own, without barriers.
namespace atom::cuda::large {

/// What a thread of a warpgroup finishes.
struct Output {
  int warpgroup, warp, lane;  // warp: of the warpgroup
  int row, token;             // first ones of the warpgroup
  uint32_t scales;            // of the warpgroup, in shared memory, as Scales describes
  uint32_t buffer;            // of the warp

  __device__ int thread() const { return warp * 32 + lane; }
};

/// The scales of a tile. Those of its tokens go to shared memory, of each warpgroup its own: units, float
/// [kTokens], and outlier multipliers, 16 bits [kTokens]. Loads are under way between the constructor and
/// share().
template <class T>
class Scales {
 public:
  __device__ Scales(const Arguments& p, const Output& out) {
    // Rows beyond the packed weight's are not stored.
    const int row = min(out.row + out.warp * 16, p.rows - 16) + out.lane / 4;
    row_units_ = {__ldg(p.row_units + row), __ldg(p.row_units + row + 8)};
    row_multipliers_ = {__ldg(p.row_units + p.rows + row), __ldg(p.row_units + p.rows + row + 8)};
    if (out.thread() >= T::kTokens / 2) return;
    const float* const from = p.token_units + out.token + out.thread() * 2;
    // Past L1: the kernel before this one wrote them.
    units_ = __ldcg(reinterpret_cast<const float2*>(from));
    multipliers_ = __ldcg(reinterpret_cast<const float2*>(from + p.stride));
  }
  __device__ void share(const Output& out) {
    // Not loaded later than here.
    asm volatile("" : "+f"(row_units_.x), "+f"(row_units_.y));
    const int thread = out.thread();
    ptx::named_barrier(1 + out.warpgroup, 128);  // the tile before is finished
    if (thread < T::kTokens / 2) {
      asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(out.scales + thread * 8), "f"(units_.x),
                   "f"(units_.y)
                   : "memory");
      const uint32_t both = static_cast<uint32_t>(multipliers_.x) | static_cast<uint32_t>(multipliers_.y)
                                                                        << 16;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(out.scales + T::kTokens * 4 + thread * 4), "r"(both)
                   : "memory");
    }
    ptx::named_barrier(1 + out.warpgroup, 128);
  }
  /// Of the lane's two rows.
  __device__ float2 row_units() const { return row_units_; }
  __device__ uint2 row_multipliers() const {
    return {static_cast<uint32_t>(row_multipliers_.x), static_cast<uint32_t>(row_multipliers_.y)};
  }

 private:
  float2 units_ = {}, multipliers_ = {}, row_units_, row_multipliers_;
};

template <typename Y>
__device__ __forceinline__ uint32_t pack(float x, float y) {
  if constexpr (std::is_same_v<Y, __nv_bfloat16>) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&v);
  } else {
    const __half2 v = __floats2half2_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
}

/// Moves pieces from a warp's buffer to Y, 16 rows of one token behind the other, 16 bytes a lane and step.
/// kPacked: the buffer holds what is stored; otherwise it holds floats.
template <typename Y, bool kPacked, class T, int kPiece>
class Mover {
 public:
  __device__ Mover(const Arguments& p, const Output& out)
      : column_(out.lane % kLanesOfToken * kVector),
        token_(out.lane / kLanesOfToken),
        rows_(p.n - out.row - out.warp * 16 - column_),
        tokens_(p.tokens - out.token - token_),
        step_(p.y_stride * kStep),
        to_(static_cast<Y*>(p.y) + (out.token + token_) * p.y_stride + out.row + out.warp * 16 + column_),
        whole_(p.vector_stores && rows_ >= kVector),
        accumulate_(p.accumulate) {}

  /// The next piece.
  __device__ void operator()(uint32_t buffer) {
    uint4 raw[kSteps][kRaw];
    const uint32_t from = buffer + token_ * kPitch + column_ * (kPacked ? 2 : 4);
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
#pragma unroll
      for (int j = 0; j < kRaw; ++j) raw[i][j] = load_vector(from + i * kStep * kPitch + j * 16);
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      if (tokens_ > i * kStep && rows_ > 0) write(to_ + i * step_, raw[i]);
    to_ += kSteps * step_, tokens_ -= kPiece;
  }

 private:
  static constexpr int kVector = 16 / sizeof(Y), kLanesOfToken = 16 / kVector;
  static constexpr int kStep = 32 / kLanesOfToken, kSteps = kPiece / kStep;
  static constexpr int kRaw = kPacked ? 1 : kVector / 4;
  static constexpr int kPitch = kPacked ? T::kPackedPitch : T::kFloatPitch;

  __device__ void write(Y* to, const uint4 (&raw)[kRaw]) const {
    alignas(16) Y values[kVector];
    if constexpr (kPacked) {
      *reinterpret_cast<uint4*>(values) = raw[0];
    } else {
      alignas(16) float v[kVector];
#pragma unroll
      for (int j = 0; j < kRaw; ++j) reinterpret_cast<uint4*>(v)[j] = raw[j];
      if (accumulate_) {
        if (whole_) {
          *reinterpret_cast<uint4*>(values) = *reinterpret_cast<const uint4*>(to);
        } else {
#pragma unroll
          for (int j = 0; j < kVector; ++j) values[j] = j < rows_ ? to[j] : from_float<Y>(0.0f);
        }
#pragma unroll
        for (int j = 0; j < kVector; ++j) v[j] = to_float(values[j]) + v[j];
      }
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[j] = from_float<Y>(v[j]);
    }
    if (whole_) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j)
        if (j < rows_) to[j] = values[j];
    }
  }

  int column_, token_;
  int rows_, tokens_;  // that are left, from the lane's first one on
  int64_t step_;
  Y* to_;
  bool whole_, accumulate_;
};

/// y of 64 rows and 2 kSums tokens; w: the units of the lane's rows. kPacked: of 16 bits, not accumulated.
template <typename Y, bool kPacked, class T, int kSums>
__device__ __forceinline__ void finish_as(const Arguments& p, const Output& out, float2 w,
                                          const int (&sums)[kSums]) {
  constexpr int kPiece = kPacked && kSums >= 16 ? 32 : 16, kBlocks = kPiece / 8;  // of 8 tokens
  static_assert(2 * kSums % kPiece == 0);
  const int g = out.lane / 4, t = out.lane % 4;
  Mover<Y, kPacked, T, kPiece> move(p, out);
#pragma unroll
  for (int piece = 0; piece < 2 * kSums / kPiece; ++piece) {
    float2 s[kBlocks];
#pragma unroll
    for (int k = 0; k < kBlocks; ++k)
      s[k] = ptx::load_floats(out.scales + ((piece * kBlocks + k) * 8 + 2 * t) * 4);
    __syncwarp();  // the piece before has been read
#pragma unroll
    for (int k = 0; k < kBlocks; k += 2) {
      float v[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int* const d = sums + 4 * (piece * kBlocks + k + i);
        const float2 u = s[k + i];
        v[i][0] = static_cast<float>(d[0]) * (u.x * w.x), v[i][1] = static_cast<float>(d[1]) * (u.y * w.x);
        v[i][2] = static_cast<float>(d[2]) * (u.x * w.y), v[i][3] = static_cast<float>(d[3]) * (u.y * w.y);
      }
      if constexpr (kPacked) {
        const uint32_t matrices[4] = {pack<Y>(v[0][0], v[0][1]), pack<Y>(v[0][2], v[0][3]),
                                      pack<Y>(v[1][0], v[1][1]), pack<Y>(v[1][2], v[1][3])};
        const int token = (k + out.lane / 16) * 8 + out.lane % 8, column = out.lane / 8 % 2 * 8;
        store_matrices_transposed(out.buffer + token * T::kPackedPitch + column * 2, matrices);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int token = (k + i / 4) * 8 + 2 * t + i % 2, column = g + i % 4 / 2 * 8;
          asm volatile("st.shared.f32 [%0], %1;" ::"r"(out.buffer + token * T::kFloatPitch + column * 4),
                       "f"(v[i / 4][i % 4])
                       : "memory");
        }
      }
    }
    __syncwarp();
    move(out.buffer);
  }
}

template <class T, int kSums>
__device__ __forceinline__ void finish(const Arguments& p, const Output& out, float2 w,
                                       const int (&sums)[kSums]) {
  if (p.y_dtype == DType::f32) {
    finish_as<float, false, T>(p, out, w, sums);
  } else if (p.y_dtype == DType::f16) {
    p.accumulate ? finish_as<__half, false, T>(p, out, w, sums) : finish_as<__half, true, T>(p, out, w, sums);
  } else {
    p.accumulate ? finish_as<__nv_bfloat16, false, T>(p, out, w, sums)
                 : finish_as<__nv_bfloat16, true, T>(p, out, w, sums);
  }
}

}  // namespace atom::cuda::large
