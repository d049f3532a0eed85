#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace atom {

/// A linear layer's weight in the 4-bit layouts of GPTQ and AWQ: W[o, i] = (q[i, o] - z[g(i), o]) * s[g(i),
/// o].
struct HfInt4Weight {
  int64_t in = 0;
  int64_t out = 0;
  int64_t groups = 0;
  /// GPTQ: [in / 8, out], nibble j (from the lowest) of word [r, o] is q[8 r + j, o].
  /// AWQ: [in, out / 8], nibble j of word [i, c] is q[i, 8 c + kAwqOrder[j]].
  const int32_t* qweight = nullptr;
  bool awq = false;
  /// [groups, out]
  std::vector<uint8_t> zeros;
  std::vector<float> scales;
  /// The group of each input [in], all below `groups`.
  std::vector<int32_t> group;
};

/// Unpacks zero points [groups, out / 8], in which the columns of a word are in the order of their own (AWQ:
/// kAwqOrder). `minus_one`: they are stored minus one, modulo 16.
std::vector<uint8_t> unpack_int4_zeros(std::span<const int32_t> words, bool awq, bool minus_one);

/// W [out, in] in row-major order, each value one product in float, rounded to `dtype` (f16, bf16 or f32).
/// `result` has out * in * size_of(dtype) bytes.
void dequantize_int4(const HfInt4Weight& weight, DType dtype, std::span<std::byte> result);

}  // namespace atom
