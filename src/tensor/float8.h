#pragma once

#include <bit>
#include <cstdint>

#include "base/host_device.h"

namespace atom {

/// The largest value of FP8 E4M3: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, NaN is
/// all ones.
inline constexpr float kFloat8Max = 448.0f;

/// E4M3 to binary32, exact.
ATOM_HOST_DEVICE inline float float8_to_float(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t magnitude = bits & 0x7Fu;
  if (magnitude == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude + 960) << 20));
  const float subnormal = static_cast<float>(magnitude) * 0x1.0p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

/// binary32 to E4M3, rounding to nearest even; beyond the largest value saturates, NaN stays NaN.
ATOM_HOST_DEVICE inline uint8_t float_to_float8(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return sign | 0x7F;
  if (magnitude >= 0x43E00000u) return sign | 0x7E;
  if (magnitude < 0x3C800000u) {
    // Below 2^-6: adding 2^14 aligns the subnormal's last bit with float's last bit, so the addition rounds.
    const float aligned = std::bit_cast<float>(magnitude) + 0x1.0p14f;
    return sign | static_cast<uint8_t>(std::bit_cast<uint32_t>(aligned) - 0x46800000u);
  }
  const uint32_t rounded = magnitude + 0x7FFFFu + (magnitude >> 20 & 1u);
  return sign | static_cast<uint8_t>((rounded >> 20) - 960);
}

}  // namespace atom
