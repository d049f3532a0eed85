#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/runtime.h"

/// The definition of the W4A4 GEMM on the device: one thread an output [token][row], reading every operand
/// through the index functions of layout.h; sums are exact, so their order is nobody's business. For tests,
/// and for devices without wgmma.
namespace atom::cuda {
namespace {

template <typename Y>
__global__ void reference_kernel(const GemmW4A4 gemm) {
  wait_for_dependencies();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, token = blockIdx.y;
  if (row >= gemm.n) return;
  const WeightTiles tiles{gemm.n, gemm.groups, gemm.n_outlier};
  const ActivationBlocks blocks{gemm.tokens, gemm.groups, gemm.n_outlier};
  const int in_tile = static_cast<int>(row % kTileRows);
  const float* row_units = reinterpret_cast<const float*>(gemm.weight + tiles.row_units_offset());
  const float* row_outlier = reinterpret_cast<const float*>(gemm.weight + tiles.outlier_multipliers_offset());
  int total = 0, outliers = 0;
  for (int64_t u = 0; u < tiles.units(); ++u) {
    const uint8_t* unit = gemm.weight + tiles.unit_offset(row / kTileRows, u);
    const bool normal = u < gemm.groups;
    const int64_t block = normal ? u : gemm.groups + (u - gemm.groups) / 2;
    const int first = normal ? 0 : static_cast<int>((u - gemm.groups) % 2) * kOutlierUnitChannels;
    int sum = 0;
    for (int c = 0; c < (normal ? kUnitChannels : kOutlierUnitChannels); ++c) {
      const ValuePlace at = normal ? WeightTiles::normal(in_tile, c) : WeightTiles::outlier(in_tile, c);
      const int byte = static_cast<int8_t>(unit[at.byte]);
      const int w = !normal ? byte : at.high_nibble ? byte >> 4 : static_cast<int8_t>(byte << 4) >> 4;
      sum += w * gemm.x[blocks.value(token, block, first + c)];
    }
    if (normal) {
      total += sum * unit[WeightTiles::multiplier_offset(in_tile)];
    } else {
      outliers += sum;
    }
  }
  const float outlier_multiplier = gemm.x_scales[blocks.outlier_multiplier(token)] * row_outlier[row];
  total += outliers * static_cast<int>(outlier_multiplier);
  const float scale = gemm.x_scales[blocks.unit(token)] * row_units[row];
  store_one(static_cast<Y*>(gemm.y) + token * gemm.y_stride + row, static_cast<float>(total) * scale,
            gemm.accumulate);
}

}  // namespace

void gemm_w4a4_reference(const GemmContext& context, const GemmW4A4& gemm) {
  check_gemm(gemm);
  if (gemm.tokens == 0) return;
  with_output_type(gemm.y_dtype, [&]<typename Y>() {
    launch(reference_kernel<Y>,
           dim3(static_cast<unsigned>((gemm.n + 127) / 128), static_cast<unsigned>(gemm.tokens)), dim3(128),
           0, context.stream, LaunchOptions{}, gemm);
  });
}

}  // namespace atom::cuda
