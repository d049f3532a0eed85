#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/quant/scales.cuh"
#include "kernels/cuda/runtime.h"

// Rounding of weights to the nearest low-bit value (RoundWeight).
//
// weight [rows, k] float, row-major, columns in the layout's order; the output as in LowBitTarget. A warp
// takes a row: first it chooses the scales group by group, of integer scales the row's unit before (32 lanes
// share a group's columns), then, reading them back, each lane makes whole bytes of two nibbles. Bound by
// memory: 4.6 bytes a weight, the second reading of a row comes from L1 and L2; not so where scales are
// searched. Bit-identical with the CPU.

namespace atom::cuda::quant {
namespace {

constexpr int kWarps = 8;

__device__ int quantize_normal(const RoundWeight& op, int64_t row, int64_t column) {
  const ChannelLayout& layout = op.out.layout;
  const float scale = half_to_float(op.out.scales[row * layout.groups() + column / layout.group]);
  return numerics::quantize(op.weight.data[row * op.weight.stride + column], numerics::inverse_scale(scale),
                            quant_scales::kInt4Low, quant_scales::kInt4Max);
}

__device__ void round_normal(const RoundWeight& op, const RowRule& rule, int64_t row, int lane) {
  const ChannelLayout& layout = op.out.layout;
  const int64_t normal = layout.k_normal();
  const float* values = op.weight.data + row * op.weight.stride;
  for (int64_t begin = 0; begin < normal; begin += layout.group) {
    const int64_t end = min(begin + layout.group, normal);
    const float scale = group_scale(rule, [&](const auto& f) {
      // Lane l has the columns that are l mod 32.
      for (int64_t i = begin + ((lane - begin) & 31); i < end; i += 32) f(static_cast<int>(i), values[i]);
    });
    if (lane == 0) op.out.scales[row * layout.groups() + begin / layout.group] = float_to_half(scale);
  }
  __syncwarp();
  uint8_t* bytes = op.out.values + row * op.out.row_bytes();
  for (int64_t b = lane; 2 * b < normal; b += 32) {
    unsigned byte = static_cast<unsigned>(quantize_normal(op, row, 2 * b)) & 0xFu;
    if (2 * b + 1 < normal) byte |= (static_cast<unsigned>(quantize_normal(op, row, 2 * b + 1)) & 0xFu) << 4;
    bytes[b] = static_cast<uint8_t>(byte);
  }
}

__device__ void round_outliers(const RoundWeight& op, const RowRule& rule, int64_t row, int lane) {
  const ChannelLayout& layout = op.out.layout;
  const float* values = op.weight.data + row * op.weight.stride + layout.k_normal();
  const int64_t at = row * layout.n_outlier;
  if (layout.outlier_type == OutlierType::fp16) {
    for (int64_t i = lane; i < layout.n_outlier; i += 32) {
      op.out.outliers_fp16[at + i] = float_to_half(numerics::finite_half(values[i]));
    }
    return;
  }
  const float scale = outlier_scale(rule, [&](const auto& f) {
    for (int64_t i = lane; i < layout.n_outlier; i += 32) f(static_cast<int>(i), values[i]);
  });
  const float inverse = numerics::inverse_scale(scale);
  constexpr float kMax = quant_scales::kInt8Max;
  for (int64_t i = lane; i < layout.n_outlier; i += 32) {
    op.out.outliers[at + i] = static_cast<int8_t>(numerics::quantize(values[i], inverse, -kMax, kMax));
  }
  if (lane == 0) op.out.outlier_scales[row] = float_to_half(scale);
}

__global__ void __launch_bounds__(kWarps * 32) round_weight_kernel(const RoundWeight op) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= op.weight.rows) return;
  const ChannelLayout& layout = op.out.layout;
  RowRule rule{op.rule, layout.integer_scales, 0.0f};
  if (rule.integer) rule.unit = row_unit(op.rule, layout, op.weight.data + row * op.weight.stride);
  round_normal(op, rule, row, lane);
  if (layout.n_outlier > 0) round_outliers(op, rule, row, lane);
}

}  // namespace

void round_weight(const DeviceContext& context, const RoundWeight& op) {
  if (op.weight.rows == 0) return;
  const auto grid = static_cast<unsigned>((op.weight.rows + kWarps - 1) / kWarps);
  launch(round_weight_kernel, dim3(grid), dim3(kWarps * 32), 0, of(context).stream(), {.dependent = false},
         op);
}

}  // namespace atom::cuda::quant
