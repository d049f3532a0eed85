// LinearLowBit, reference. y [m, n] = x [m, k] * w [n, k]^T; x: INT4 or INT8 values in groups plus outliers
// (QuantizedActivations), w: INT4 in the same groups plus outliers (PreparedWeight, any layout).
// Per group an exact int32 sum, then acc = fma(float(sum), sx * sw, acc) from 0, groups ascending, INT8
// outliers last in the same manner; FP8 ones with sum = fma(x, w, sum), channels ascending; FP16 outliers:
// acc = fma(x, w, acc), channels ascending. sx * sw is exact (both have 11 bits). With integer scales: one
// exact int32 sum of all, then y = float(sum) * (ux * uw). Source: Atom, section 4.1 and 4.2;
// docs/numerics.md.

#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/linear/packed_layout.h"
#include "kernels/cpu/linear/partition.h"
#include "kernels/integer_scales.h"
#include "kernels/reference/linear.h"
#include "tensor/float8.h"
#include "tensor/half.h"

namespace atom::reference {
namespace {

/// One row of a weight in plain numbers.
struct Row {
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int8_t> outliers;
  float outlier_scale = 0.0f;
  std::vector<float> outliers_fp16;
  /// With integer scales, which are then multipliers.
  float unit = 1.0f;

  explicit Row(const ChannelLayout& layout)
      : values(static_cast<size_t>(layout.k_normal())), scales(static_cast<size_t>(layout.groups())) {
    const auto n_outlier = static_cast<size_t>(layout.n_outlier);
    if (layout.outlier_type == OutlierType::fp16) {
      outliers_fp16.resize(n_outlier);
    } else {
      outliers.resize(n_outlier);
    }
  }
};

void load_canonical(const PreparedWeight& w, int64_t n, Row& row) {
  const int64_t row_bytes = (w.layout.k_normal() + 1) / 2;
  const uint8_t* bytes = w.values.data() + n * row_bytes;
  for (size_t k = 0; k < row.values.size(); ++k) {
    const int nibble = (bytes[k / 2] >> (k % 2 * 4)) & 0xF;
    row.values[k] = static_cast<int8_t>((nibble ^ 8) - 8);
  }
  const uint16_t* scales = w.scales.data() + n * w.layout.groups();
  const uint16_t outlier_scale =
      row.outliers.empty() ? uint16_t{0} : w.outlier_scales[static_cast<size_t>(n)];
  if (w.layout.integer_scales) {
    const int64_t unit = integer_scales::unit_steps(scales, w.layout.groups(), outlier_scale);
    const auto multiplier = [unit](uint16_t scale) {
      return static_cast<float>(integer_scales::multiplier_of(scale, unit));
    };
    row.unit = integer_scales::from_steps(unit);
    for (size_t g = 0; g < row.scales.size(); ++g) row.scales[g] = multiplier(scales[g]);
    row.outlier_scale = multiplier(outlier_scale);
  } else {
    for (size_t g = 0; g < row.scales.size(); ++g) row.scales[g] = half_to_float(scales[g]);
    row.outlier_scale = half_to_float(outlier_scale);
  }
  for (size_t k = 0; k < row.outliers.size(); ++k) {
    row.outliers[k] = w.outliers[static_cast<size_t>(n) * row.outliers.size() + k];
  }
  for (size_t k = 0; k < row.outliers_fp16.size(); ++k) {
    row.outliers_fp16[k] =
        half_to_float(w.outliers_fp16[static_cast<size_t>(n) * row.outliers_fp16.size() + k]);
  }
}

void load_packed(const PreparedWeight& w, const PackedLayout& packed, int64_t n, Row& row) {
  for (size_t i = 0; i < row.values.size(); ++i) {
    const auto k = static_cast<int64_t>(i);
    const uint8_t byte = w.values[static_cast<size_t>(packed.value_byte(n, k))];
    row.values[i] = static_cast<int8_t>((packed.in_low_nibble(k) ? byte & 0xF : byte >> 4) - 8);
  }
  for (size_t g = 0; g < row.scales.size(); ++g) {
    row.scales[g] = half_to_float(w.scales[static_cast<size_t>(packed.scale(n, static_cast<int64_t>(g)))]);
  }
  for (size_t k = 0; k < row.outliers.size(); ++k) {
    const auto at = static_cast<size_t>(packed.outlier(n, static_cast<int64_t>(k)));
    row.outliers[k] = static_cast<int8_t>(static_cast<uint8_t>(w.outliers[at]) ^ 0x80);
  }
  if (!row.outliers.empty()) row.outlier_scale = half_to_float(w.outlier_scales[static_cast<size_t>(n)]);
  if (w.layout.integer_scales) row.unit = w.units[static_cast<size_t>(n)];
  for (size_t k = 0; k < row.outliers_fp16.size(); ++k) {
    const auto at = static_cast<size_t>(packed.outlier_fp16(n, static_cast<int64_t>(k)));
    row.outliers_fp16[k] = half_to_float(w.outliers_fp16[at]);
  }
}

int32_t dot(const int8_t* a, const int8_t* b, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

float dot_float8(const int8_t* a, const int8_t* b, int64_t count) {
  float sum = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    sum = std::fma(float8_to_float(static_cast<uint8_t>(a[i])), float8_to_float(static_cast<uint8_t>(b[i])),
                   sum);
  }
  return sum;
}

/// With integer scales.
float integer_output(const QuantizedActivations& x, int64_t m, const Row& row, const ChannelLayout& layout) {
  const float* multipliers = x.scales(m);
  int32_t total = 0;
  const auto add = [&](const int8_t* a, const int8_t* b, int64_t count, float x_multiplier,
                       float w_multiplier) {
    total += dot(a, b, count) * static_cast<int32_t>(x_multiplier * w_multiplier);
  };
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const int64_t begin = g * layout.group;
    add(x.values(m) + begin, row.values.data() + begin, std::min(layout.group, layout.k_normal() - begin),
        multipliers[g], row.scales[static_cast<size_t>(g)]);
  }
  add(x.values(m) + x.outlier_offset(), row.outliers.data(), layout.n_outlier, multipliers[layout.groups()],
      row.outlier_scale);
  return static_cast<float>(total) * (x.unit(m) * row.unit);
}

float output(const QuantizedActivations& x, int64_t m, const Row& row, const ChannelLayout& layout) {
  const int8_t* values = x.values(m);
  const float* scales = x.scales(m);
  float acc = 0.0f;
  for (int64_t g = 0; g < layout.groups(); ++g) {
    const int64_t begin = g * layout.group;
    const int64_t length = std::min(layout.group, layout.k_normal() - begin);
    const int32_t sum = dot(values + begin, row.values.data() + begin, length);
    acc = std::fma(static_cast<float>(sum), scales[g] * row.scales[static_cast<size_t>(g)], acc);
  }
  if (layout.n_outlier == 0) return acc;
  if (layout.outlier_type != OutlierType::fp16) {
    const int8_t* outliers = values + x.outlier_offset();
    const float sum = layout.outlier_type == OutlierType::fp8
                          ? dot_float8(outliers, row.outliers.data(), layout.n_outlier)
                          : static_cast<float>(dot(outliers, row.outliers.data(), layout.n_outlier));
    return std::fma(sum, scales[layout.groups()] * row.outlier_scale, acc);
  }
  const float* outliers = x.outliers_fp16(m);
  for (size_t k = 0; k < row.outliers_fp16.size(); ++k) {
    acc = std::fma(outliers[k], row.outliers_fp16[k], acc);
  }
  return acc;
}

}  // namespace

void linear_low_bit(const DeviceContext& device, const LinearLowBit& op) {
  const QuantizedActivations& x = *op.x;
  const PreparedWeight& w = *op.w;
  assert(x.layout() == w.layout && op.y.rows == x.tokens() && op.y.cols == w.n);
  const int64_t block_rows = PackedLayout::rows_of(w.weight_layout);
  // The canonical layout never looks at it.
  const PackedLayout packed(std::max<int64_t>(block_rows, 1), w.n, w.layout);
  for_chunks(device, w.n, 8, [&](int64_t begin, int64_t end, int) {
    Row row(w.layout);
    for (int64_t n = begin; n < end; ++n) {
      if (block_rows == 0) {
        load_canonical(w, n, row);
      } else {
        load_packed(w, packed, n, row);
      }
      for (int64_t m = 0; m < x.tokens(); ++m) {
        const float acc =
            w.layout.integer_scales ? integer_output(x, m, row, w.layout) : output(x, m, row, w.layout);
        op.y(m, n) = op.accumulate ? op.y(m, n) + acc : acc;
      }
    }
  });
}

}  // namespace atom::reference
