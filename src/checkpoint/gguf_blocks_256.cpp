#include <array>

#include "checkpoint/gguf_blocks.h"

namespace atom::gguf_blocks {
namespace {

constexpr size_t kBlock = 256;

/// The eight scales and minima of Q4_K and Q5_K, 6 bits each: the first four are the low bits of bytes 0..3
/// and 4..7; the others have their lower nibbles in bytes 8..11 and their upper two bits above the first
/// four.
struct ScalesAndMinima {
  std::array<int, 8> scale;
  std::array<int, 8> minimum;
};

ScalesAndMinima unpack_scales_and_minima(const std::byte* in) {
  ScalesAndMinima out{};
  for (size_t i = 0; i < 4; ++i) {
    const int first = load_u8(in + i);
    const int second = load_u8(in + 4 + i);
    const int third = load_u8(in + 8 + i);
    out.scale[i] = first & 63;
    out.minimum[i] = second & 63;
    out.scale[i + 4] = (third & 15) | (first >> 6) << 4;
    out.minimum[i + 4] = third >> 4 | (second >> 6) << 4;
  }
  return out;
}

/// The 16 scales of Q3_K, 6 bits each: lower nibbles in bytes 0..7 (scales 0..7 in the low, 8..15 in the high
/// nibbles), upper two bits in bytes 8..11.
std::array<int, 16> unpack_scales_of_q3_k(const std::byte* in) {
  std::array<int, 16> scales{};
  for (size_t i = 0; i < scales.size(); ++i) {
    const int low = load_u8(in + i % 8) >> (i / 8 * 4) & 15;
    const int high = load_u8(in + 8 + i % 4) >> (i / 4 * 2) & 3;
    scales[i] = low | high << 4;
  }
  return scales;
}

}  // namespace

void dequantize_q2_k(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 84, out += kBlock) {
    const std::byte* q = in + 16;
    const float d = load_half(in + 80);
    const float e = load_half(in + 82);
    // Values 0..127 are in the first 32 bytes, by rising pairs of bits; the others in the next.
    for (size_t sub = 0; sub < 16; ++sub) {
      const int packed = load_u8(in + sub);
      const float scale = d * static_cast<float>(packed & 15);
      const float minimum = e * static_cast<float>(packed >> 4);
      const std::byte* values = q + sub / 8 * 32 + sub % 2 * 16;
      const auto shift = static_cast<int>(sub % 8 / 2 * 2);
      for (size_t i = 0; i < 16; ++i) {
        out[sub * 16 + i] = scale * static_cast<float>(load_u8(values + i) >> shift & 3) - minimum;
      }
    }
  }
}

void dequantize_q3_k(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 110, out += kBlock) {
    const std::byte* high = in;
    const std::byte* low = in + 32;
    const auto scales = unpack_scales_of_q3_k(in + 96);
    const float d = load_half(in + 108);
    for (size_t sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(scales[sub] - 32);
      const size_t at = sub % 2 * 16;
      const auto shift = static_cast<int>(sub % 8 / 2 * 2);
      const auto bit = static_cast<int>(sub / 2);
      for (size_t i = 0; i < 16; ++i) {
        const int q =
            (load_u8(low + sub / 8 * 32 + at + i) >> shift & 3) | (load_u8(high + at + i) >> bit & 1) << 2;
        out[sub * 16 + i] = scale * static_cast<float>(q - 4);
      }
    }
  }
}

void dequantize_q4_k(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 144, out += kBlock) {
    const float d = load_half(in);
    const float e = load_half(in + 2);
    const ScalesAndMinima integers = unpack_scales_and_minima(in + 4);
    for (size_t sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(integers.scale[sub]);
      const float minimum = e * static_cast<float>(integers.minimum[sub]);
      const std::byte* q = in + 16 + sub / 2 * 32;
      const auto shift = static_cast<int>(sub % 2 * 4);
      for (size_t i = 0; i < 32; ++i) {
        out[sub * 32 + i] = scale * static_cast<float>(load_u8(q + i) >> shift & 15) - minimum;
      }
    }
  }
}

void dequantize_q5_k(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 176, out += kBlock) {
    const float d = load_half(in);
    const float e = load_half(in + 2);
    const ScalesAndMinima integers = unpack_scales_and_minima(in + 4);
    const std::byte* high = in + 16;
    for (size_t sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(integers.scale[sub]);
      const float minimum = e * static_cast<float>(integers.minimum[sub]);
      const std::byte* low = in + 48 + sub / 2 * 32;
      const auto shift = static_cast<int>(sub % 2 * 4);
      const auto bit = static_cast<int>(sub);
      for (size_t i = 0; i < 32; ++i) {
        const int q = (load_u8(low + i) >> shift & 15) | (load_u8(high + i) >> bit & 1) << 4;
        out[sub * 32 + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

void dequantize_q6_k(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 210, out += kBlock) {
    const float d = load_half(in + 208);
    for (size_t sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(load_i8(in + 192 + sub));
      // Of 128 values 64 bytes have the low nibbles of values 0..63, then their high ones values 64..127; the
      // 32 bytes of `high` have two bits each of values i, i + 32, i + 64 and i + 96.
      const size_t half = sub / 8;
      const std::byte* low = in + half * 64 + sub % 4 * 16;
      const std::byte* high = in + 128 + half * 32 + sub % 2 * 16;
      const auto shift = static_cast<int>(sub % 8 / 4 * 4);
      const auto pair = static_cast<int>(sub % 8 / 2 * 2);
      for (size_t i = 0; i < 16; ++i) {
        const int q = (load_u8(low + i) >> shift & 15) | (load_u8(high + i) >> pair & 3) << 4;
        out[sub * 16 + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

void dequantize_iq4_xs(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 136, out += kBlock) {
    const float d = load_half(in);
    const int high = load_u16(in + 2);
    for (size_t sub = 0; sub < 8; ++sub) {
      const int low = load_u8(in + 4 + sub / 2) >> (sub % 2 * 4) & 15;
      const float scale = d * static_cast<float>((low | (high >> (sub * 2) & 3) << 4) - 32);
      const std::byte* q = in + 8 + sub * 16;
      for (size_t i = 0; i < 16; ++i) {
        const int byte = load_u8(q + i);
        out[sub * 32 + i] = scale * static_cast<float>(kNonlinear4[byte & 15]);
        out[sub * 32 + i + 16] = scale * static_cast<float>(kNonlinear4[byte >> 4]);
      }
    }
  }
}

void dequantize_tq1_0(const std::byte* in, float* out, size_t blocks) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  struct Part {
    size_t bytes;
    size_t digits;
  };
  constexpr Part kParts[] = {{32, 5}, {16, 5}, {4, 4}};
  for (size_t b = 0; b < blocks; ++b, in += 54) {
    const float d = load_half(in + 52);
    const std::byte* q = in;
    for (const Part& part : kParts) {
      for (size_t digit = 0; digit < part.digits; ++digit) {
        for (size_t i = 0; i < part.bytes; ++i) {
          // A byte is the digits as a fraction of 256: multiplied by a power of three, its leading digit is
          // the wanted one, and what overflows are those before.
          const auto shifted = static_cast<uint8_t>(load_u8(q + i) * kPowers[digit]);
          *out++ = d * static_cast<float>((shifted * 3 >> 8) - 1);
        }
      }
      q += part.bytes;
    }
  }
}

void dequantize_tq2_0(const std::byte* in, float* out, size_t blocks) {
  for (size_t b = 0; b < blocks; ++b, in += 66, out += kBlock) {
    const float d = load_half(in + 64);
    for (size_t sub = 0; sub < 8; ++sub) {
      const std::byte* q = in + sub / 4 * 32;
      const auto shift = static_cast<int>(sub % 4 * 2);
      for (size_t i = 0; i < 32; ++i) {
        out[sub * 32 + i] = d * static_cast<float>((load_u8(q + i) >> shift & 3) - 1);
      }
    }
  }
}

}  // namespace atom::gguf_blocks
