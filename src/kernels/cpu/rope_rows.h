#pragma once

#include <cstdint>

/// The head primitives of which RopeAppend is made, once per instruction set. This header is included by
/// files compiled for one instruction set, so it declares plain functions only: no inline code may come from
/// here.
namespace atom::cpu {

/// Each function equals its part of kernels/reference/rope.h bit for bit. Arrays are unaligned. head_dim is a
/// multiple of `head_dim_multiple`.
struct RopeRows {
  int64_t head_dim_multiple;
  /// RoPE of `heads` consecutive heads of x; cos, sin [head_dim / 2].
  void (*rotate)(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin);
  /// Walsh-Hadamard transform of `heads` consecutive heads, times `norm`. head_dim is a power of two.
  void (*hadamard)(float* x, int64_t heads, int64_t head_dim, float norm);
  /// x [n] to a row of fp16; of q in [0, 255]; of q in [0, 15]. params: scale and minimum in fp16.
  void (*store_half)(const float* x, int64_t n, uint16_t* row);
  void (*store_int8)(const float* x, int64_t n, uint8_t* row, uint16_t* params);
  void (*store_int4)(const float* x, int64_t n, uint8_t* row, uint16_t* params);
};

const RopeRows& rope_rows_avx2();
const RopeRows& rope_rows_avx512();

}  // namespace atom::cpu
