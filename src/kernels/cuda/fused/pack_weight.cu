// Canonical low-bit weights with integer scales -> WeightTiles (kernels/cuda/layout.h). First a kernel, a
// warp a row, finds the rows' scale units, the greatest common divisors of their scales, and outlier
// multipliers. Then a block makes one unit of one tile in shared memory (8,320 bytes: twice values of 64
// rows and their multipliers, the exact quotients of scales and the row's unit) and copies it out 16 bytes a
// thread. In a normal unit a byte holds two rows, g and g + 8 of a block of 16: a thread makes the whole
// byte. Rows beyond n and channels beyond the end are zero.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/row_unit.cuh"
#include "kernels/cuda/runtime.h"
#include "kernels/integer_scales.h"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    row_units_kernel(const LowBitWeight w, const WeightTiles tiles, uint8_t* packed) {
  wait_for_dependencies();
  const int64_t row = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (row >= tiles.rows()) return;
  const int64_t unit = row < w.n ? fused::row_unit_steps(w, row) : 0;
  if (threadIdx.x % 32 != 0) return;
  float outlier = tiles.n_outlier == 0 ? 1.0f : 0.0f;
  if (row < w.n && tiles.n_outlier > 0) {
    outlier = static_cast<float>(integer_scales::multiplier_of(w.outlier_scales[row], unit));
  }
  reinterpret_cast<float*>(packed + tiles.row_units_offset())[row] = integer_scales::from_steps(unit);
  reinterpret_cast<float*>(packed + tiles.outlier_multipliers_offset())[row] = outlier;
}

__global__ void __launch_bounds__(kThreads)
    pack_weight_kernel(const LowBitWeight w, const WeightTiles tiles, uint8_t* packed) {
  __shared__ __align__(16) uint8_t unit_bytes[kUnitBytes];
  // No early launch of dependents: GEMMs read ahead in the weights.
  wait_for_dependencies();
  const int64_t unit = blockIdx.x, first_row = int64_t{blockIdx.y} * kTileRows;
  const int64_t k_normal = w.layout.k - w.layout.n_outlier, row_bytes = (k_normal + 1) / 2;
  const int thread = static_cast<int>(threadIdx.x);
  const bool normal = unit < tiles.groups;
  if (normal) {
    const auto nibble = [&](int64_t row, int64_t channel) -> int {
      if (row >= w.n || channel >= k_normal) return 0;
      return w.values[row * row_bytes + channel / 2] >> (channel % 2 * 4) & 15;
    };
    for (int i = thread; i < kTileRows / 2 * kUnitChannels; i += kThreads) {
      const int channel = i % kUnitChannels, pair = i / kUnitChannels;
      const int row = pair / 8 * 16 + pair % 8;
      const int64_t at = unit * kUnitChannels + channel;
      unit_bytes[WeightTiles::normal(row, channel).byte] =
          static_cast<uint8_t>(nibble(first_row + row, at) | nibble(first_row + row + 8, at) << 4);
    }
  } else {
    for (int i = thread; i < kTileRows * kOutlierUnitChannels; i += kThreads) {
      const int channel = i % kOutlierUnitChannels, row = i / kOutlierUnitChannels;
      const int64_t at = (unit - tiles.groups) * kOutlierUnitChannels + channel;
      const bool real = first_row + row < w.n && at < tiles.n_outlier;
      unit_bytes[WeightTiles::outlier(row, channel).byte] =
          real ? static_cast<uint8_t>(w.outliers[(first_row + row) * tiles.n_outlier + at]) : uint8_t{0};
    }
  }
  const auto* row_units = reinterpret_cast<const float*>(packed + tiles.row_units_offset()) + first_row;
  for (int row = thread; row < kTileRows; row += kThreads) {
    uint8_t multiplier = 0;
    if (normal && first_row + row < w.n && row_units[row] > 0.0f) {
      const float scale = half_to_float(w.scales[(first_row + row) * tiles.groups + unit]);
      multiplier = static_cast<uint8_t>(scale / row_units[row]);
    }
    unit_bytes[WeightTiles::multiplier_offset(row)] = multiplier;
  }
  __syncthreads();
  auto* out = reinterpret_cast<uint4*>(packed + tiles.unit_offset(blockIdx.y, unit));
  for (int i = thread; i < kUnitBytes / 16; i += kThreads)
    out[i] = reinterpret_cast<const uint4*>(unit_bytes)[i];
}

}  // namespace

void pack_weight(const PackWeightArgs& args, cudaStream_t stream) {
  const ChannelLayout& layout = args.weight.layout;
  fused::expect((layout.group == kUnitChannels || layout.k_normal() == 0) &&
                    (layout.outlier_type == OutlierType::int8 || layout.n_outlier == 0),
                "pack_weight: tiles have groups of 128 and INT8 outliers");
  fused::expect(layout.integer_scales, "pack_weight: tiles have integer scales");
  fused::expect(fused::is_aligned(args.packed, 0, DType::u8),
                "pack_weight: packed weights are aligned to 16 bytes");
  const WeightTiles tiles{args.weight.n, layout.groups(), layout.n_outlier};
  if (tiles.bytes() == 0) return;
  fused::expect(tiles.tiles() <= 65535, "pack_weight: too many rows");
  launch(row_units_kernel, dim3(fused::blocks_for(tiles.rows(), kThreads / 32)), kThreads, 0, stream, {},
         args.weight, tiles, args.packed);
  launch(pack_weight_kernel, dim3(static_cast<unsigned>(tiles.units()), static_cast<unsigned>(tiles.tiles())),
         kThreads, 0, stream, {}, args.weight, tiles, args.packed);
}

}  // namespace atom::cuda
