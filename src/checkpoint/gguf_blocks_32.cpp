#include <array>
#include <bit>

#include "checkpoint/gguf_blocks.h"

namespace atom::gguf_blocks {
namespace {

constexpr size_t kBlock = 32;
constexpr size_t kHalf = kBlock / 2;

/// Twice the values of the 4-bit float E2M1.
constexpr int8_t kE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e - 128), subnormal for e below 2; there is no NaN for e = 255, as there is in the OCP format.
float half_of_exponent(int e) {
  const auto exponent = static_cast<uint32_t>(e);
  return std::bit_cast<float>(e < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
}

/// Values 0..31 of the five-bit types: fifth bits at `high`, nibbles at `low`.
std::array<uint8_t, kBlock> five_bits(const std::byte* high, const std::byte* low) {
  uint32_t bits = 0;
  std::memcpy(&bits, high, sizeof(bits));
  std::array<uint8_t, kBlock> q{};
  for (size_t i = 0; i < kHalf; ++i) {
    const auto byte = static_cast<uint32_t>(load_u8(low + i));
    q[i] = static_cast<uint8_t>((byte & 15) | (bits >> i & 1) << 4);
    q[i + kHalf] = static_cast<uint8_t>(byte >> 4 | (bits >> (i + kHalf) & 1) << 4);
  }
  return q;
}

}  // namespace

void dequantize_q4_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 18, out += kBlock) {
    const float d = load_half(in);
    for (size_t i = 0; i < kHalf; ++i) {
      const int q = load_u8(in + 2 + i);
      out[i] = d * static_cast<float>((q & 15) - 8);
      out[i + kHalf] = d * static_cast<float>((q >> 4) - 8);
    }
  }
}

void dequantize_q4_1(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 20, out += kBlock) {
    const float d = load_half(in);
    const float m = load_half(in + 2);
    for (size_t i = 0; i < kHalf; ++i) {
      const int q = load_u8(in + 4 + i);
      out[i] = d * static_cast<float>(q & 15) + m;
      out[i + kHalf] = d * static_cast<float>(q >> 4) + m;
    }
  }
}

void dequantize_q5_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 22, out += kBlock) {
    const float d = load_half(in);
    const auto q = five_bits(in + 2, in + 6);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i] - 16);
  }
}

void dequantize_q5_1(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 24, out += kBlock) {
    const float d = load_half(in);
    const float m = load_half(in + 2);
    const auto q = five_bits(in + 4, in + 8);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i]) + m;
  }
}

void dequantize_q8_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 34, out += kBlock) {
    const float d = load_half(in);
    for (size_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(load_i8(in + 2 + i)) * d;
  }
}

void dequantize_iq4_nl(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 18, out += kBlock) {
    const float d = load_half(in);
    for (size_t i = 0; i < kHalf; ++i) {
      const int q = load_u8(in + 2 + i);
      out[i] = d * static_cast<float>(kNonlinear4[q & 15]);
      out[i + kHalf] = d * static_cast<float>(kNonlinear4[q >> 4]);
    }
  }
}

void dequantize_mxfp4(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 17, out += kBlock) {
    const float d = half_of_exponent(load_u8(in));
    for (size_t i = 0; i < kHalf; ++i) {
      const int q = load_u8(in + 1 + i);
      out[i] = d * static_cast<float>(kE2M1[q & 15]);
      out[i + kHalf] = d * static_cast<float>(kE2M1[q >> 4]);
    }
  }
}

}  // namespace atom::gguf_blocks
