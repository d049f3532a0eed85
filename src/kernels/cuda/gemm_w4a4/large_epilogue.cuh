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
  int token_in_tile;
  uint32_t scales;  // TokenScales of the tile
  uint32_t buffer;  // of the warp

  __device__ int thread() const { return warp * 32 + lane; }
};

/// Of the lane's two rows: units and outlier multipliers.
struct RowScales {
  float2 units, multipliers;

  __device__ RowScales(const Arguments& p, const Output& out) {
    // Rows beyond the packed weight's are not stored.
    const int row = min(out.row + out.warp * 16, p.rows - 16) + out.lane / 4;
    units = {__ldg(p.row_units + row), __ldg(p.row_units + row + 8)};
    multipliers = {__ldg(p.row_units + p.rows + row), __ldg(p.row_units + p.rows + row + 8)};
  }
};

/// What is known of a tile's tokens, for all warpgroups, in shared memory: units, float [kTokens], what the
/// offset of unsigned weights has added to sums, int [kTokens], and outlier multipliers, 16 bits [kTokens].
template <class T>
struct TokenScales {
  static constexpr int kOffsetsAt = T::kTokens * 4, kMultipliersAt = T::kTokens * 8;

  /// By one warp: from global memory, where the kernel before this one left them.
  static __device__ void load(const Arguments& p, int token, uint32_t to, int lane) {
    for (int t = lane * 2; t < T::kTokens; t += 64) {
      const float* const from = p.token_units + token + t;
      const float2 units = __ldcg(reinterpret_cast<const float2*>(from));
      const float2 multipliers = __ldcg(reinterpret_cast<const float2*>(from + p.stride));
      if constexpr (T::kUnsigned) {
        int2 sum = {};
#pragma unroll
        for (int i = 0; i < ActivationBlocks::kSumParts; ++i) {
          const int2 part = __ldcg(reinterpret_cast<const int2*>(from + (2 + i) * p.stride));
          sum.x += part.x, sum.y += part.y;
        }
        store_words(to + kOffsetsAt + t * 4, sum.x * Unpack<true>::kOffset, sum.y * Unpack<true>::kOffset);
      }
      store_words(to + t * 4, __float_as_int(units.x), __float_as_int(units.y));
      const auto both = static_cast<uint32_t>(multipliers.x) | static_cast<uint32_t>(multipliers.y) << 16;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + kMultipliersAt + t * 2), "r"(both) : "memory");
    }
  }
  /// Of two tokens, the first of them even.
  static __device__ float2 units(uint32_t scales, int token) {
    return ptx::load_floats(scales + token * 4);
  }
  static __device__ int2 offsets(uint32_t scales, int token) {
    return T::kUnsigned ? load_integers(scales + kOffsetsAt + token * 4) : int2{0, 0};
  }
  /// 16 bits each.
  static __device__ uint32_t multipliers(uint32_t scales, int token) {
    return load_word(scales + kMultipliersAt + token * 2);
  }
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

/// A warp's buffer: of each token 16 rows, in 16-byte chunks that are placed so that neither the writes below
/// nor reads of whole tokens meet in a bank. Only the low three bits of a token matter for that.
struct PackedBuffer {
  static constexpr int kTokenBytes = 32;
  static __device__ int at(int token, int chunk) {
    return token * kTokenBytes + (chunk ^ (token >> 2 & 1)) * 16;
  }
};
struct FloatBuffer {
  static constexpr int kTokenBytes = 64;
  static __device__ int at(int token, int chunk) {
    return (token ^ (token >> 1 & 1)) * kTokenBytes + (chunk ^ (token >> 2 & 1) * 2) * 16;
  }
};

/// Moves pieces of kPiece tokens from a warp's buffer to Y, 16 bytes a lane and step. kPacked: the buffer
/// holds what is stored; otherwise it holds floats.
template <typename Y, bool kPacked, int kPiece>
class Mover {
 public:
  __device__ Mover(const Arguments& p, const Output& out)
      : column_(out.lane % kLanesOfToken * kVector),
        token_(out.lane / kLanesOfToken),
        rows_(p.n - out.row - out.warp * 16 - column_),
        tokens_(p.tokens - out.token - token_),
        step_(p.y_stride * kStep),
        to_(static_cast<Y*>(p.y) + (out.token + token_) * p.y_stride + out.row + out.warp * 16 + column_),
        from_(out.buffer + Layout::at(token_, column_ * kElement / 16)),
        whole_(p.vector_stores && rows_ >= kVector),
        accumulate_(p.accumulate) {}

  /// The next piece.
  __device__ void operator()() {
    uint4 raw[kSteps][kRaw];
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
#pragma unroll
      for (int j = 0; j < kRaw; ++j)
        raw[i][j] = load_vector(from_ + i * kStep * Layout::kTokenBytes + j * 16);
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      if (tokens_ > i * kStep && rows_ > 0) write(to_ + i * step_, raw[i]);
    to_ += kSteps * step_, tokens_ -= kPiece;
  }

 private:
  using Layout = std::conditional_t<kPacked, PackedBuffer, FloatBuffer>;
  static constexpr int kVector = 16 / sizeof(Y), kLanesOfToken = 16 / kVector;
  static constexpr int kStep = 32 / kLanesOfToken, kSteps = kPiece / kStep;
  static constexpr int kElement = kPacked ? 2 : 4, kRaw = kVector * kElement / 16;
  static_assert(kPiece % kStep == 0 && kStep % 8 == 0);

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
  uint32_t from_;
  bool whole_, accumulate_;
};

/// y of 64 rows and 2 kSums tokens; w: the units of the lane's rows. kPacked: of 16 bits, not accumulated.
template <typename Y, bool kPacked, class T, int kSums>
__device__ __forceinline__ void finish_as(const Arguments& p, const Output& out, float2 w,
                                          const int (&sums)[kSums]) {
  constexpr int kFit = T::kBufferBytes / (kPacked ? PackedBuffer::kTokenBytes : FloatBuffer::kTokenBytes);
  constexpr int kPiece = kFit < 2 * kSums ? kFit : 2 * kSums, kBlocks = kPiece / 8;  // of 8 tokens
  static_assert(2 * kSums % kPiece == 0);
  const int g = out.lane / 4, t = out.lane % 4;
  Mover<Y, kPacked, kPiece> move(p, out);
#pragma unroll
  for (int piece = 0; piece < 2 * kSums / kPiece; ++piece) {
    float2 s[kBlocks];
    int2 offsets[kBlocks];
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      const int token = out.token_in_tile + (piece * kBlocks + k) * 8 + 2 * t;
      s[k] = TokenScales<T>::units(out.scales, token),
      offsets[k] = TokenScales<T>::offsets(out.scales, token);
    }
    __syncwarp();  // the piece before has been read
#pragma unroll
    for (int k = 0; k < kBlocks; k += 2) {
      float v[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int* const d = sums + 4 * (piece * kBlocks + k + i);
        const float2 u = s[k + i];
        const int2 o = offsets[k + i];
        v[i][0] = static_cast<float>(d[0] - o.x) * (u.x * w.x);
        v[i][1] = static_cast<float>(d[1] - o.y) * (u.y * w.x);
        v[i][2] = static_cast<float>(d[2] - o.x) * (u.x * w.y);
        v[i][3] = static_cast<float>(d[3] - o.y) * (u.y * w.y);
      }
      if constexpr (kPacked) {
        const uint32_t matrices[4] = {pack<Y>(v[0][0], v[0][1]), pack<Y>(v[0][2], v[0][3]),
                                      pack<Y>(v[1][0], v[1][1]), pack<Y>(v[1][2], v[1][3])};
        const int at = PackedBuffer::at(out.lane / 16 * 8 + out.lane % 8, out.lane / 8 % 2);
        store_matrices_transposed(out.buffer + k * 8 * PackedBuffer::kTokenBytes + at, matrices);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int at = FloatBuffer::at(2 * t + i % 2, g / 4 + i % 4 / 2 * 2) + g % 4 * 4;
          asm volatile(
              "st.shared.f32 [%0], %1;" ::"r"(out.buffer + (k + i / 4) * 8 * FloatBuffer::kTokenBytes + at),
              "f"(v[i / 4][i % 4])
              : "memory");
        }
      }
    }
    __syncwarp();
    move();
  }
}

/// The same for 8 tokens, without a buffer.
template <typename Y, class T>
__device__ __forceinline__ void finish_few(const Arguments& p, const Output& out, float2 w,
                                           const int (&sums)[4]) {
  const int in_tile = out.token_in_tile + out.lane % 4 * 2;
  const float2 u = TokenScales<T>::units(out.scales, in_tile);
  const int2 o = TokenScales<T>::offsets(out.scales, in_tile);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = out.row + out.warp * 16 + out.lane / 4 + i / 2 * 8;
    const int token = out.token + out.lane % 4 * 2 + i % 2;
    if (row >= p.n || token >= p.tokens) continue;
    store_one(static_cast<Y*>(p.y) + token * p.y_stride + row,
              static_cast<float>(sums[i] - (i % 2 == 0 ? o.x : o.y)) *
                  ((i % 2 == 0 ? u.x : u.y) * (i < 2 ? w.x : w.y)),
              p.accumulate);
  }
}

template <class T, int kSums>
__device__ __forceinline__ void finish(const Arguments& p, const Output& out, float2 w,
                                       const int (&sums)[kSums]) {
  if constexpr (kSums == 4) {
    if (p.y_dtype == DType::f32) return finish_few<float, T>(p, out, w, sums);
    if (p.y_dtype == DType::f16) return finish_few<__half, T>(p, out, w, sums);
    return finish_few<__nv_bfloat16, T>(p, out, w, sums);
  } else {
    if (p.y_dtype == DType::f32) return finish_as<float, false, T>(p, out, w, sums);
    if (p.y_dtype == DType::f16) {
      return p.accumulate ? finish_as<__half, false, T>(p, out, w, sums)
                          : finish_as<__half, true, T>(p, out, w, sums);
    }
    p.accumulate ? finish_as<__nv_bfloat16, false, T>(p, out, w, sums)
                 : finish_as<__nv_bfloat16, true, T>(p, out, w, sums);
  }
}

}  // namespace atom::cuda::large
