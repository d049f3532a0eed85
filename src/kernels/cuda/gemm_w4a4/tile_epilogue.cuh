#pragma once

#include <algorithm>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/tile.cuh"
#include "kernels/cuda/gemm_w4a4/tile_device.cuh"

/// From int32 sums in registers to Y, for the GEMM (tile_kernel.cuh). A warp has 16 rows of
/// W, which Y wants next to each other: pieces of up to 128 tokens (64 of float) go through shared memory, of
/// each warp on its own, without barriers.
namespace atom::cuda::tiles {

/// What a thread of a warpgroup finishes.
struct Output {
  int warp, lane;  // warp: of the warpgroup
  int row, token;  // first ones of the warpgroup
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

/// Moves pieces of kPiece tokens from a warp's buffer to Y, 16 bytes a lane and step: all 16 rows are
/// outputs, and Y is aligned. Y: float, from a FloatBuffer, may be added to; others come as they are.
template <typename Y, int kPiece>
class Mover {
 public:
  __device__ Mover(const Arguments& p, const Output& out)
      : token_(out.lane / kLanesOfToken),
        // Outputs come in sixteens: a warp's rows are all there, or none.
        tokens_(out.row + out.warp * 16 < p.n ? p.tokens - out.token - token_ : 0),
        step_(p.y_stride * kStep),
        to_(static_cast<Y*>(p.y) + (out.token + token_) * p.y_stride + out.row + out.warp * 16 +
            out.lane % kLanesOfToken * kVector),
        from_(out.buffer + Layout::at(token_, out.lane % kLanesOfToken)),
        accumulate_(kAdds && p.accumulate && p.vector_stores && p.y_dtype == DType::f32) {
    load_old();
  }

  /// The next piece.
  __device__ void operator()() {
    uint4 values[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) values[i] = load_vector(from_ + i * kStep * Layout::kTokenBytes);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      if constexpr (kAdds) {
        if (accumulate_) {
          values[i] = {__float_as_uint(old_[i].x + __uint_as_float(values[i].x)),
                       __float_as_uint(old_[i].y + __uint_as_float(values[i].y)),
                       __float_as_uint(old_[i].z + __uint_as_float(values[i].z)),
                       __float_as_uint(old_[i].w + __uint_as_float(values[i].w))};
        }
      }
      if (tokens_ > i * kStep) store_global(reinterpret_cast<uint4*>(to_ + i * step_), values[i]);
    }
    to_ += kSteps * step_, tokens_ -= kPiece;
  }

  /// What the next piece is added to: asked for early, it comes while the sums do.
  __device__ void load_old() {
    if constexpr (kAdds) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        old_[i] = {};
        if (accumulate_ && tokens_ > i * kStep) old_[i] = *reinterpret_cast<const float4*>(to_ + i * step_);
      }
    }
  }

 private:
  static constexpr bool kAdds = std::is_same_v<Y, float>;
  using Layout = std::conditional_t<kAdds, FloatBuffer, PackedBuffer>;
  static constexpr int kVector = 16 / sizeof(Y), kLanesOfToken = 16 / kVector;
  static constexpr int kStep = 32 / kLanesOfToken, kSteps = kPiece / kStep;
  static_assert(kPiece % kStep == 0 && kStep % 8 == 0);

  int token_, tokens_;  // the latter: that are left, from the lane's first one on
  int64_t step_;
  Y* to_;
  uint32_t from_;
  bool accumulate_;
  float4 old_[kAdds ? kSteps : 1];
};

/// Tokens of 2 kSums that fit a warp's buffer at one time, and what moves them.
template <typename Y, class T, int kSums>
inline constexpr int kPieceOf = std::min(T::kBufferBytes /
                                             (std::is_same_v<Y, float> ? FloatBuffer::kTokenBytes
                                                                       : PackedBuffer::kTokenBytes),
                                         2 * kSums);
template <typename Y, class T, int kSums>
using MoverOf = Mover<Y, kPieceOf<Y, T, kSums>>;

/// One element, of any type.
__device__ __forceinline__ void store_element(const Arguments& p, int token, int row, float value,
                                              bool accumulate) {
  const bool real = token < p.tokens && row < p.n;
  const int64_t at = token * p.y_stride + row;
  if (p.y_dtype == DType::f32) {
    if (real) store_one(static_cast<float*>(p.y) + at, value, accumulate);
  } else if (p.y_dtype == DType::f16) {
    if (real) store_one(static_cast<__half*>(p.y) + at, value, accumulate);
  } else {
    if (real) store_one(static_cast<__nv_bfloat16*>(p.y) + at, value, accumulate);
  }
}

/// Any rows, alignment and type, element by element: seldom, so in little code. (Loops and branches are the
/// same for all lanes, here and in finish(): otherwise the compiler keeps nothing in uniform registers around
/// them, not even in the loop over units.)
template <int kPiece>
__device__ __forceinline__ void move_elements(const Arguments& p, const Output& out, int first) {
  const int column = out.lane % 16;
#pragma unroll 1
  for (int i = 0; i < kPiece / 2; ++i) {
    const int in_piece = i * 2 + out.lane / 16;
    const uint32_t at = out.buffer + FloatBuffer::at(in_piece, column / 4) + column % 4 * 4;
    store_element(p, out.token + first + in_piece, out.row + out.warp * 16 + column,
                  __uint_as_float(load_word(at)), p.accumulate);
  }
}

/// y of 64 rows and 2 kSums tokens; w: the units of the lane's rows. Y: what the buffer holds; of float, all
/// types of outputs, and sums that are added to them.
template <typename Y, class T, int kSums>
__device__ __forceinline__ void finish_as(const Arguments& p, const Output& out, float2 w,
                                          const int (&sums)[kSums], MoverOf<Y, T, kSums> move) {
  constexpr bool kPacked = !std::is_same_v<Y, float>;
  constexpr int kPiece = kPieceOf<Y, T, kSums>, kBlocks = kPiece / 8;  // of 8 tokens
  static_assert(2 * kSums % kPiece == 0);
  const int g = out.lane / 4, t = out.lane % 4;
  const bool vectors = kPacked || (p.vector_stores && p.y_dtype == DType::f32);
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
    if (vectors) {
      move();
      if (piece + 1 < 2 * kSums / kPiece) move.load_old();
    } else {
      move_elements<kPiece>(p, out, piece * kPiece);
    }
  }
}

/// The same for 8 tokens, without a buffer.
class Few {
 public:
  __device__ Few(const Arguments& p, const Output& out)
      : row_(out.row + out.warp * 16 + out.lane / 4), token_(out.token + out.lane % 4 * 2) {
    adds_ = p.accumulate && p.y_dtype == DType::f32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      old_[i] = 0.0f;
      if (adds_ && row(i) < p.n && token(i) < p.tokens) {
        old_[i] = static_cast<const float*>(p.y)[token(i) * p.y_stride + row(i)];
      }
    }
  }
  template <class T>
  __device__ void finish(const Arguments& p, const Output& out, float2 w, const int (&sums)[4]) const {
    const int in_tile = out.token_in_tile + out.lane % 4 * 2;
    const float2 u = TokenScales<T>::units(out.scales, in_tile);
    const int2 o = TokenScales<T>::offsets(out.scales, in_tile);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = static_cast<float>(sums[i] - (i % 2 == 0 ? o.x : o.y)) *
                          ((i % 2 == 0 ? u.x : u.y) * (i < 2 ? w.x : w.y));
      store_element(p, token(i), row(i), adds_ ? old_[i] + value : value, p.accumulate && !adds_);
    }
  }

 private:
  __device__ int row(int i) const {
    return row_ + i / 2 * 8;
  }
  __device__ int token(int i) const {
    return token_ + i % 2;
  }

  int row_, token_;
  bool adds_;
  float old_[4];
};

/// What a thread has before its sums are there: float outputs that they are added to are on their way.
template <class T, int kSums>
using Finisher = std::conditional_t<kSums == 4, Few, MoverOf<float, T, kSums>>;

template <class T, int kSums>
__device__ __forceinline__ void finish(const Arguments& p, const Output& out, float2 w,
                                       const int (&sums)[kSums], const Finisher<T, kSums>& finisher) {
  if constexpr (kSums == 4) {
    finisher.template finish<T>(p, out, w, sums);
  } else {
    const bool packed = p.vector_stores && !p.accumulate;
    if (packed && p.y_dtype == DType::bf16) {
      return finish_as<__nv_bfloat16, T>(p, out, w, sums, MoverOf<__nv_bfloat16, T, kSums>(p, out));
    }
    if (packed && p.y_dtype == DType::f16) {
      return finish_as<__half, T>(p, out, w, sums, MoverOf<__half, T, kSums>(p, out));
    }
    finish_as<float, T>(p, out, w, sums, finisher);
  }
}

}  // namespace atom::cuda::tiles
