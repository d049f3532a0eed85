#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_fp16.h>
#include <random>
#include <vector>

#include "kernels/cuda/layout.h"
#include "kernels/integer_scales.h"

/// Random operands of a W4A4 / W4A8 GEMM on the host, packed for the device, and the product by the
/// contract.
namespace atom::cuda::testing {

struct HostGemm {
  int64_t n, groups, n_outlier, tokens;
  WeightTiles tiles;
  ActivationBlocks blocks;
  /// As the device gets them.
  std::vector<uint8_t> weight;
  std::vector<int8_t> x;
  std::vector<float> x_scales;
  /// Plain copies: values [n][blocks * 128], [tokens][blocks * 128]; those of X with their multiplier.
  std::vector<int8_t> plain_w, plain_x;
  /// Multipliers [n][groups + 1], the outliers' last; units [n].
  std::vector<int> multipliers;
  std::vector<float> units;

  /// `extreme`: all operands as large as they may be, of random sign; or, if `one_sign`, all weights positive
  /// and all activations negative.
  HostGemm(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, int activation_bits, uint32_t seed,
           bool extreme = false, bool one_sign = false)
      : n(n),
        groups(groups),
        n_outlier(n_outlier),
        tokens(tokens),
        tiles{n, groups, n_outlier},
        blocks{tokens, groups, n_outlier} {
    std::mt19937 random(seed);
    const auto draw = [&](int low, int high) {
      const int value = low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
      return !extreme ? value : value < 0 ? low : high;
    };
    const int64_t width = blocks.blocks() * kUnitChannels, normal = groups * kUnitChannels;
    plain_w.assign(n * width, 0), plain_x.assign(tokens * width, 0);
    x_scales.assign(blocks.scale_count(), NAN);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t g = 0; g < groups; ++g) multipliers.push_back(draw(r % 16 == 5 ? 0 : 1, 16));
      multipliers.push_back(n_outlier == 0 ? 1 : draw(r % 16 == 5 ? 0 : 1, 4));
      units.push_back(r % 16 == 5 && !extreme ? 0.0f : 1e-5f * static_cast<float>(draw(1, 4096)));
      for (int64_t c = 0; c < normal + n_outlier; ++c)
        plain_w[r * width + c] = static_cast<int8_t>(one_sign     ? (c < normal ? 7 : 127)
                                                     : c < normal ? draw(-8, 7)
                                                                  : draw(-127, 127));
    }
    for (int64_t m = 0; m < tokens; ++m) {
      x_scales[blocks.unit(m)] = 1e-4f * static_cast<float>(draw(1, 4096));
      x_scales[blocks.outlier_multiplier(m)] =
          n_outlier == 0 ? 1.0f : static_cast<float>(draw(1, integer_scales::kMostOfOutlierActivations));
      for (int64_t g = 0; g < groups; ++g) {
        const int multiplier = draw(1, integer_scales::most_of_activations(activation_bits));
        for (int64_t c = g * kUnitChannels; c < (g + 1) * kUnitChannels; ++c)
          plain_x[m * width + c] = static_cast<int8_t>(one_sign               ? -8 * multiplier
                                                       : activation_bits == 4 ? draw(-8, 7) * multiplier
                                                                              : draw(-127, 127));
      }
      int sum = 0;
      for (int64_t c = 0; c < normal; ++c) sum += plain_x[m * width + c];
      for (int i = 0; blocks.summed() && i < ActivationBlocks::kSumParts; ++i) {
        const int part = i == 0 ? sum - 7 : 1;
        std::memcpy(&x_scales[static_cast<size_t>(blocks.sum(m, i))], &part, sizeof(part));
      }
      for (int64_t c = normal; c < normal + n_outlier; ++c)
        plain_x[m * width + c] = static_cast<int8_t>(draw(-127, 127));
    }
    pack_x(width);
    pack_weight(width);
  }

  /// One output before it is rounded to the type of Y.
  float product(int64_t token, int64_t row) const {
    const int64_t width = blocks.blocks() * kUnitChannels;
    const int8_t* a = plain_x.data() + token * width;
    const int8_t* b = plain_w.data() + row * width;
    int32_t total = 0;
    for (int64_t g = 0; g <= groups; ++g) {
      const int64_t begin = g * kUnitChannels, end = g < groups ? begin + kUnitChannels : width;
      int32_t sum = 0;
      for (int64_t c = begin; c < end; ++c) sum += int32_t{a[c]} * b[c];
      total += sum * multipliers[row * (groups + 1) + g] *
               (g < groups ? 1 : static_cast<int>(x_scales[blocks.outlier_multiplier(token)]));
    }
    return static_cast<float>(total) * (x_scales[blocks.unit(token)] * units[row]);
  }

 private:
  void pack_x(int64_t width) {
    // Rows from `tokens` on: whatever.
    x.assign(blocks.value_bytes(), 77);
    for (int64_t m = 0; m < tokens; ++m)
      for (int64_t c = 0; c < width; ++c)
        x[blocks.value(m, c / kUnitChannels, static_cast<int>(c % kUnitChannels))] = plain_x[m * width + c];
  }

  void pack_weight(int64_t width) {
    weight.assign(tiles.bytes(), 0);
    const auto write = [&](int64_t at, float value) { std::memcpy(weight.data() + at, &value, 4); };
    for (int64_t r = 0; r < n; ++r) {
      const int row = static_cast<int>(r % kTileRows);
      write(tiles.row_units_offset() + 4 * r, units[r]);
      write(tiles.outlier_multipliers_offset() + 4 * r,
            static_cast<float>(multipliers[r * (groups + 1) + groups]));
      for (int64_t u = 0; u < tiles.units(); ++u) {
        uint8_t* unit = weight.data() + tiles.unit_offset(r / kTileRows, u);
        const bool normal = u < groups;
        if (normal) {
          unit[WeightTiles::multiplier_offset(row)] = static_cast<uint8_t>(multipliers[r * (groups + 1) + u]);
        }
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
};

}  // namespace atom::cuda::testing
