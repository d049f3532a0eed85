#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/linear/packed_layout.h"
#include "kernels/cuda.h"
#include "kernels/integer_scales.h"
#include "kernels/ops.h"
#include "tensor/half.h"

// Repacking of canonical low-bit weights into the layout that a device's kernel reads, once, when a model is
// loaded. The layouts are described in kernels/cpu/linear/packed_layout.h.

namespace atom {
namespace {

/// `weight`, of the host, in `memory`.
PreparedWeight copy_canonical(const LowBitWeight& weight, int activation_bits, Memory* memory) {
  const auto copy = [memory]<class T>(const T* values, int64_t count) {
    return Buffer<T>::copy_of({values, static_cast<size_t>(count)}, memory);
  };
  PreparedWeight out;
  out.n = weight.n;
  out.layout = weight.layout;
  out.activation_bits = activation_bits;
  out.values = copy(weight.values, weight.value_count());
  out.scales = copy(weight.scales, weight.scale_count());
  out.outliers = copy(weight.outliers, weight.outlier_count());
  out.outlier_scales = copy(weight.outlier_scales, weight.outlier_scale_count());
  out.outliers_fp16 = copy(weight.outliers_fp16, weight.outlier_fp16_count());
  return out;
}

void pack_normal(const LowBitWeight& weight, const PackedLayout& packed, PreparedWeight& out) {
  const int64_t k_normal = weight.layout.k_normal();
  out.values = Buffer<uint8_t>(static_cast<size_t>(packed.blocks * packed.block_bytes()));
  out.scales = Buffer<uint16_t>(static_cast<size_t>(packed.blocks * packed.groups * packed.rows));
  for (int64_t row = 0; row < weight.n; ++row) {
    const uint8_t* in = weight.values + row * weight.row_bytes();
    for (int64_t k = 0; k < k_normal; ++k) {
      const int nibble = (in[k / 2] >> (k % 2 * 4)) & 0xF;
      // Two's complement plus 8 is the nibble with its top bit flipped.
      const int offset = nibble ^ 8;
      out.values[static_cast<size_t>(packed.value_byte(row, k))] |=
          static_cast<uint8_t>(packed.in_low_nibble(k) ? offset : offset << 4);
    }
    for (int64_t g = 0; g < packed.groups; ++g) {
      out.scales[static_cast<size_t>(packed.scale(row, g))] = weight.scales[row * packed.groups + g];
    }
  }
}

/// Scales to multipliers and units.
void split_scales(const LowBitWeight& weight, const PackedLayout& packed, PreparedWeight& out) {
  out.units = Buffer<float>(static_cast<size_t>(packed.blocks * packed.rows));
  for (int64_t row = 0; row < weight.n; ++row) {
    const uint16_t outlier = packed.n_outlier > 0 ? weight.outlier_scales[row] : uint16_t{0};
    const int64_t unit =
        integer_scales::unit_steps(weight.scales + row * packed.groups, packed.groups, outlier);
    const auto split = [unit](uint16_t& scale) {
      scale = float_to_half(static_cast<float>(integer_scales::multiplier_of(scale, unit)));
    };
    for (int64_t g = 0; g < packed.groups; ++g) split(out.scales[static_cast<size_t>(packed.scale(row, g))]);
    if (packed.n_outlier > 0) split(out.outlier_scales[static_cast<size_t>(row)]);
    out.units[static_cast<size_t>(row)] = integer_scales::from_steps(unit);
  }
}

void pack_outliers(const LowBitWeight& weight, const PackedLayout& packed, PreparedWeight& out) {
  const int64_t n_outlier = packed.n_outlier;
  if (n_outlier == 0) return;
  if (weight.layout.outlier_type == OutlierType::fp16) {
    out.outliers_fp16 = Buffer<uint16_t>(static_cast<size_t>(packed.blocks * n_outlier * packed.rows));
    for (int64_t row = 0; row < weight.n; ++row) {
      for (int64_t k = 0; k < n_outlier; ++k) {
        out.outliers_fp16[static_cast<size_t>(packed.outlier_fp16(row, k))] =
            weight.outliers_fp16[row * n_outlier + k];
      }
    }
    return;
  }
  out.outliers = Buffer<int8_t>(static_cast<size_t>(packed.blocks * packed.outlier_quads * packed.rows * 4));
  out.outlier_scales = Buffer<uint16_t>(static_cast<size_t>(packed.blocks * packed.rows));
  for (int64_t row = 0; row < weight.n; ++row) {
    for (int64_t k = 0; k < n_outlier; ++k) {
      const auto offset = static_cast<uint8_t>(weight.outliers[row * n_outlier + k]) ^ 0x80;
      out.outliers[static_cast<size_t>(packed.outlier(row, k))] = static_cast<int8_t>(offset);
    }
    out.outlier_scales[static_cast<size_t>(row)] = weight.outlier_scales[row];
  }
}

}  // namespace

WeightLayout choose_layout(const DeviceContext& device, int64_t n, const ChannelLayout& layout,
                           int activation_bits) {
  if (device.cuda != nullptr) {
    // What is not exact is left to the general kernels where everything has to be.
    if (activation_bits == 16) {
      const bool fits = layout.group == 128 && layout.n_outlier == 0 && layout.k % 8 == 0;
      return fits && !device.exact ? WeightLayout::w4a16_sm90 : WeightLayout::canonical;
    }
    if (is_dense8(layout)) {
      const bool fits = layout.outlier_type == OutlierType::int8 || (n % 16 == 0 && !device.exact);
      return fits ? WeightLayout::dense8_sm90 : WeightLayout::canonical;
    }
    return fits_blocks(layout) ? WeightLayout::tiles_sm90 : WeightLayout::canonical;
  }
  if (!PackedLayout::fits(layout) || (activation_bits != 4 && activation_bits != 8)) {
    return WeightLayout::canonical;
  }
#if defined(__x86_64__)
  if (device.isa >= CpuIsa::avx512) return WeightLayout::rows16_avx512;
  if (device.isa >= CpuIsa::avx2) return WeightLayout::rows8_avx2;
#endif
  return WeightLayout::canonical;
}

DType choose_input_type(const DeviceContext& device, DType weights, int64_t k) {
  return device.cuda != nullptr && !device.exact && k % 8 == 0 ? weights : DType::f32;
}

PreparedWeight prepare(const DeviceContext& device, const LowBitWeight& weight, int activation_bits) {
  const WeightLayout layout = choose_layout(device, weight.n, weight.layout, activation_bits);
  if (device.cuda == nullptr) return prepare(weight, activation_bits, layout);
  return cuda_pack(device, copy_canonical(weight, activation_bits, device.memory), layout);
}

PreparedWeight prepare(const DeviceContext& device, PreparedWeight canonical) {
  const WeightLayout layout = choose_layout(device, canonical.n, canonical.layout, canonical.activation_bits);
  if (device.cuda != nullptr) return cuda_pack(device, std::move(canonical), layout);
  return prepare(canonical.view(), canonical.activation_bits, layout);
}

PreparedWeight prepare(const LowBitWeight& weight, int activation_bits, WeightLayout weight_layout) {
  const int64_t rows = PackedLayout::rows_of(weight_layout);
  if (rows == 0) return copy_canonical(weight, activation_bits, nullptr);
  PreparedWeight out;
  out.n = weight.n;
  out.layout = weight.layout;
  out.activation_bits = activation_bits;
  out.weight_layout = weight_layout;
  require(PackedLayout::fits(weight.layout),
          "low-bit weight: groups of {} channels cannot be repacked, a multiple of 4 is needed",
          weight.layout.group);
  const PackedLayout packed(rows, weight.n, weight.layout);
  pack_normal(weight, packed, out);
  pack_outliers(weight, packed, out);
  if (weight.layout.integer_scales) split_scales(weight, packed, out);
  return out;
}

}  // namespace atom
