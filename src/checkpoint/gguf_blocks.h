#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/half.h"

/// The block decoders behind dequantize() (gguf_quants.h): each turns `blocks` blocks at `in` into floats at
/// `out`. Widths and sizes are those of find_ggml_layout(). Integers of a value are put together exactly,
/// then multiplied as written, one rounding an operation.
namespace atom::gguf_blocks {

inline uint16_t load_u16(const std::byte* p) {
  uint16_t value = 0;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

inline float load_half(const std::byte* p) {
  return half_to_float(load_u16(p));
}

inline int load_u8(const std::byte* p) {
  return std::to_integer<int>(*p);
}

inline int load_i8(const std::byte* p) {
  return static_cast<int8_t>(std::to_integer<uint8_t>(*p));
}

/// IQ4_NL and IQ4_XS: what a nibble stands for. Denser around zero, as weights are.
inline constexpr int8_t kNonlinear4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};

// Blocks of 32 values (gguf_blocks_32.cpp). Of byte i of 16 the low nibble is value i, the high one value
// i + 16.

/// fp16 d, 16 bytes q: d * (q - 8)
void dequantize_q4_0(const std::byte* in, float* out, size_t blocks);
/// fp16 d, fp16 m, 16 bytes q: d * q + m
void dequantize_q4_1(const std::byte* in, float* out, size_t blocks);
/// fp16 d, 32 fifth bits h, 16 bytes q: d * ((q | h << 4) - 16)
void dequantize_q5_0(const std::byte* in, float* out, size_t blocks);
/// fp16 d, fp16 m, 32 fifth bits h, 16 bytes q: d * (q | h << 4) + m
void dequantize_q5_1(const std::byte* in, float* out, size_t blocks);
/// fp16 d, 32 int8 q: q * d
void dequantize_q8_0(const std::byte* in, float* out, size_t blocks);
/// fp16 d, 16 bytes q: d * kNonlinear4[q]
void dequantize_iq4_nl(const std::byte* in, float* out, size_t blocks);
/// one exponent byte e, 16 bytes q (E2M1): 2^(e - 128) * twice the value of q
void dequantize_mxfp4(const std::byte* in, float* out, size_t blocks);

// Blocks of 256 values in 16 sub-blocks of 16 or 8 of 32, whose scales are integers themselves
// (gguf_blocks_256.cpp).

/// 16 bytes of scale s (low nibble) and minimum m, 64 bytes q of 2 bits, fp16 d, fp16 e: (d * s) * q - (e *
/// m)
void dequantize_q2_k(const std::byte* in, float* out, size_t blocks);
/// 256 third bits h, 64 bytes q of 2 bits, 12 bytes of 6-bit scales s, fp16 d: (d * (s - 32)) * ((q | h << 2)
/// - 4)
void dequantize_q3_k(const std::byte* in, float* out, size_t blocks);
/// fp16 d, fp16 e, 12 bytes of 6-bit scales s and minima m, 128 bytes q: (d * s) * q - (e * m)
void dequantize_q4_k(const std::byte* in, float* out, size_t blocks);
/// fp16 d, fp16 e, 12 bytes of scales s and minima m, 256 fifth bits h, 128 bytes q:
/// (d * s) * (q | h << 4) - (e * m)
void dequantize_q5_k(const std::byte* in, float* out, size_t blocks);
/// 128 bytes q, 64 bytes h of 2 bits, 16 int8 s, fp16 d: (d * s) * ((q | h << 4) - 32)
void dequantize_q6_k(const std::byte* in, float* out, size_t blocks);
/// fp16 d, 2 bytes of upper and 4 of lower bits of eight 6-bit scales s, 128 bytes q:
/// (d * (s - 32)) * kNonlinear4[q]
void dequantize_iq4_xs(const std::byte* in, float* out, size_t blocks);
/// 52 bytes that hold five (the last four: four) ternary digits q each, fp16 d: d * (q - 1)
void dequantize_tq1_0(const std::byte* in, float* out, size_t blocks);
/// 64 bytes q of 2 bits, fp16 d: d * (q - 1)
void dequantize_tq2_0(const std::byte* in, float* out, size_t blocks);

}  // namespace atom::gguf_blocks
