#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_fp16.h>
#include <random>
#include <vector>

#include "kernels/cuda/layout.h"

/// Random operands of a W4A4 / W4A8 GEMM on the host, packed for the device, and the product by the
/// contract's order.
namespace atom::cuda::testing {

struct HostGemm {
  int64_t n, groups, n_outlier, tokens;
  WeightTiles tiles;
  ActivationBlocks blocks;
  std::vector<uint8_t> weight;
  std::vector<int8_t> x;
  std::vector<float> sx;
  /// Plain copies: [n][blocks * 128], [tokens][blocks * 128], scales [n][groups + 1].
  std::vector<int8_t> plain_w, plain_x;
  std::vector<float> sw;

  HostGemm(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, int activation_bits, uint32_t seed)
      : n(n),
        groups(groups),
        n_outlier(n_outlier),
        tokens(tokens),
        tiles{n, groups, n_outlier},
        blocks{tokens, groups, n_outlier} {
    std::mt19937 random(seed);
    const int64_t width = blocks.blocks() * kUnitChannels;
    plain_w.assign(n * width, 0), plain_x.assign(tokens * width, 0);
    const auto fill = [&](std::vector<int8_t>& values, int64_t rows, bool four_bits) {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < groups * kUnitChannels + n_outlier; ++c)
          values[r * width + c] = static_cast<int8_t>(
              four_bits && c < groups * kUnitChannels ? int(random() % 16) - 8 : int(random() % 255) - 127);
    };
    fill(plain_w, n, true), fill(plain_x, tokens, activation_bits == 4);
    const auto scale = [&] {
      return __half2float(__float2half(0.001f + 1e-5f * static_cast<float>(random() % 4096)));
    };
    sw.resize(n * (groups + 1));
    for (float& s : sw) s = scale();
    sx.assign(blocks.scale_count(), NAN);
    for (int64_t g = 0; g <= groups; ++g)
      for (int64_t m = 0; m < tokens; ++m) sx[blocks.scale(m, g)] = scale();
    // Rows from `tokens` on: whatever.
    x.assign(blocks.value_bytes(), 77);
    for (int64_t m = 0; m < tokens; ++m)
      for (int64_t c = 0; c < width; ++c)
        x[blocks.value(m, c / kUnitChannels, static_cast<int>(c % kUnitChannels))] = plain_x[m * width + c];
    weight.assign(tiles.bytes(), 0);
    for (int64_t r = 0; r < n; ++r) {
      const int row = static_cast<int>(r % kTileRows);
      for (int64_t u = 0; u < tiles.units(); ++u) {
        uint8_t* unit = weight.data() + tiles.unit_offset(r / kTileRows, u);
        const bool normal = u < groups;
        const __half s = __float2half(sw[r * (groups + 1) + (normal ? u : groups)]);
        std::memcpy(unit + WeightTiles::scale_offset(row), &s, 2);
        const int8_t* from =
            plain_w.data() + r * width +
            (normal ? u * kUnitChannels : groups * kUnitChannels + (u - groups) * kOutlierUnitChannels);
        for (int c = 0; c < (normal ? kUnitChannels : kOutlierUnitChannels); ++c) {
          const ValuePlace at = normal ? WeightTiles::normal(row, c) : WeightTiles::outlier(row, c);
          if (normal) {
            unit[at.byte] = static_cast<uint8_t>(unit[at.byte] | (from[c] & 0xF) << (at.high_nibble ? 4 : 0));
          } else {
            unit[at.byte] = static_cast<uint8_t>(from[c]);
          }
        }
      }
    }
  }

  /// One output in the contract's order; `magnitude` gets the sum of |qx qw| sx sw over the channels.
  float product(int64_t token, int64_t row, float* magnitude) const {
    const int64_t width = blocks.blocks() * kUnitChannels;
    const int8_t* a = plain_x.data() + token * width;
    const int8_t* b = plain_w.data() + row * width;
    float acc = 0.0f;
    *magnitude = 0.0f;
    for (int64_t g = 0; g <= groups; ++g) {
      if (g == groups && n_outlier == 0) break;
      const int64_t begin = g * kUnitChannels, end = g < groups ? begin + kUnitChannels : width;
      int32_t sum = 0, absolute = 0;
      for (int64_t c = begin; c < end; ++c) {
        const int32_t product = int32_t{a[c]} * b[c];
        sum += product, absolute += std::abs(product);
      }
      const float s = sx[blocks.scale(token, g)] * sw[row * (groups + 1) + g];
      acc = std::fma(static_cast<float>(sum), s, acc);
      *magnitude += static_cast<float>(absolute) * s;
    }
    return acc;
  }
};

}  // namespace atom::cuda::testing
