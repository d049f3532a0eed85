#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/quantized.h"
#include "tensor/half.h"

namespace atom {

/// Row n of a canonical weight without outliers as f16: fp16(q * scale). out [k].
inline void dequantize_row(const LowBitWeight& w, int64_t n, uint16_t* out) {
  const uint8_t* values = w.values + n * w.row_bytes();
  for (int64_t g = 0; g < w.layout.groups(); ++g) {
    const float scale = half_to_float(w.scales[n * w.layout.groups() + g]);
    // The sixteen weights that a group can have.
    uint16_t table[16];
    for (int nibble = 0; nibble < 16; ++nibble) {
      table[nibble] = float_to_half(static_cast<float>((nibble ^ 8) - 8) * scale);
    }
    const int64_t end = std::min((g + 1) * w.layout.group, w.layout.k);
    for (int64_t k = g * w.layout.group; k < end; ++k) out[k] = table[values[k / 2] >> (k % 2 * 4) & 0xF];
  }
}

}  // namespace atom
