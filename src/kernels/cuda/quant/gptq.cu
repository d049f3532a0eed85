#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/quant/scales.cuh"
#include "kernels/cuda/runtime.h"

// GPTQ's column loop for one block of up to 128 columns (GptqWeight).
//
// weight [rows, k] float, upper [k, k] float, errors [rows, 128] float, row-major; the output as in
// LowBitTarget; units [rows] float, of integer scales: chosen in the first block, kept for the others;
// importance [k] double, of integer scales that the caller gives none for. A warp takes a row: lane l holds
// columns l, l + 32, l + 64, l + 96 of the block, a column's value goes to all lanes by shuffle, all of them
// quantize it, and each updates its own columns behind it with the factors of the block's square of `upper`
// in shared memory (64 KB). The float operations of a row are the CPU's, in the same order. What the errors
// do to the columns behind the block is one matrix product of cuBLAS (errors [rows, 128] times the block's
// rows of `upper`): 1/64 of the multiplications are done here, but all of the latency, 128 dependent steps of
// about 100 cycles. Method: Frantar et al. 2022 (arXiv 2210.17323).

namespace atom::cuda::quant {
namespace {

constexpr int kBlock = kLargestGpuGptqBlock;
constexpr int kSlots = kBlock / 32;
constexpr int kWarps = 16;
constexpr int kGridPerSm = 3;
constexpr size_t kSharedBytes = sizeof(float) * kBlock * kBlock + size_t{kWarps} * kBlock;

struct BlockArguments {
  MatrixView<float> weight;
  MatrixView<const float> upper;
  ScaleRule rule;
  LowBitTarget out;
  float* errors;
  float* units;
  int begin;
  int width;
};

/// Scale of the group or of the outliers that are under way where the block begins; 0 where none is.
__device__ float scale_under_way(const BlockArguments& a, int64_t row) {
  const ChannelLayout& layout = a.out.layout;
  const int64_t normal = layout.k_normal();
  if (a.begin < normal) {
    if (a.begin % layout.group == 0) return 0;
    return half_to_float(a.out.scales[row * layout.groups() + a.begin / layout.group]);
  }
  if (layout.outlier_type == OutlierType::fp16 || a.begin == normal) return 0;
  return half_to_float(a.out.outlier_scales[row]);
}

/// Packs the block's quantized normal columns `q`; a byte may share its nibbles with the next or last block.
__device__ void store_nibbles(const BlockArguments& a, int64_t row, const int8_t* q, int lane) {
  const int last = static_cast<int>(min(int64_t{a.begin} + a.width, a.out.layout.k_normal()));
  uint8_t* bytes = a.out.values + row * a.out.row_bytes();
  for (int b = a.begin / 2 + lane; 2 * b < last; b += 32) {
    const int low = 2 * b, high = low + 1;
    const bool has_low = low >= a.begin, has_high = high < last;
    unsigned byte = has_low && has_high ? 0u : bytes[b];
    if (has_low) byte = (byte & 0xF0u) | (static_cast<unsigned>(q[low - a.begin]) & 0xFu);
    if (has_high) byte = (byte & 0x0Fu) | (static_cast<unsigned>(q[high - a.begin]) & 0xFu) << 4;
    bytes[b] = static_cast<uint8_t>(byte);
  }
}

__device__ void quantize_row(const BlockArguments& a, int64_t row, const float* upper, int8_t* q_bytes) {
  using namespace quant_scales;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const ChannelLayout& layout = a.out.layout;
  const int normal = static_cast<int>(layout.k_normal()), group = static_cast<int>(layout.group);
  const bool int8_outliers = layout.outlier_type == OutlierType::int8;
  float* values = a.weight.data + row * a.weight.stride + a.begin;
  RowRule rule{a.rule, layout.integer_scales, 0.0f};
  if (rule.integer) {
    rule.unit = a.begin == 0 ? row_unit(a.rule, layout, values) : a.units[row];
    __syncwarp();
    if (a.begin == 0 && lane == 0) a.units[row] = rule.unit;
  }
  float w[kSlots], errors[kSlots];
  int q[kSlots];
#pragma unroll
  for (int j = 0; j < kSlots; ++j) {
    const int column = 32 * j + lane;
    w[j] = column < a.width ? values[column] : 0.0f;
    errors[j] = 0;
    q[j] = 0;
  }
  float scale = scale_under_way(a, row);
  float inverse = numerics::inverse_scale(scale);
  int to_head = a.begin < normal ? (group - a.begin % group) % group : 0;

  // The group [column, last) of the block as it now is; what lies behind the block is in memory.
  const auto group_values = [&](int column, int last) {
    return [&, column, last](const auto& f) {
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        const int i = 32 * j + lane;
        if (i >= column && i < min(last, a.width)) f(a.begin + i, w[j]);
      }
      for (int i = a.width + lane; i < last; i += 32) f(a.begin + i, values[i]);
    };
  };

#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    for (int source = 0; source < 32; ++source) {
      const int column = 32 * slot + source;
      if (column >= a.width) break;
      const int at = a.begin + column;
      if (at < normal) {
        if (to_head == 0) {
          scale = group_scale(rule, group_values(column, column + min(group, normal - at)));
          inverse = numerics::inverse_scale(scale);
          if (lane == 0) a.out.scales[row * layout.groups() + at / group] = float_to_half(scale);
          to_head = group;
        }
        --to_head;
      } else if (at == normal && int8_outliers) {
        scale = outlier_scale(rule, group_values(column, static_cast<int>(layout.k) - a.begin));
        inverse = numerics::inverse_scale(scale);
        if (lane == 0) a.out.outlier_scales[row] = float_to_half(scale);
      }
      const float before = __shfl_sync(~0u, w[slot], source);
      int quantized = 0;
      float after;
      if (at < normal) {
        quantized = numerics::quantize(before, inverse, kInt4Low, kInt4Max);
        after = static_cast<float>(quantized) * scale;
      } else if (int8_outliers) {
        quantized = numerics::quantize(before, inverse, -kInt8Max, kInt8Max);
        after = static_cast<float>(quantized) * scale;
      } else {
        after = numerics::finite_half(before);
      }
      const float* factors = upper + column * kBlock;
      const float error = (before - after) / factors[column];
      if (lane == source) {
        w[slot] = after;
        errors[slot] = error;
        q[slot] = quantized;
      } else if (lane > source) {
        w[slot] -= error * factors[32 * slot + lane];
      }
#pragma unroll
      for (int j = slot + 1; j < kSlots; ++j) w[j] -= error * factors[32 * j + lane];
    }
  }

#pragma unroll
  for (int j = 0; j < kSlots; ++j) {
    const int column = 32 * j + lane;
    if (column >= a.width) continue;
    values[column] = w[j];
    a.errors[row * kBlock + column] = errors[j];
    q_bytes[column] = static_cast<int8_t>(q[j]);
    const int outlier = a.begin + column - normal;
    if (outlier < 0) continue;
    const int64_t to = row * layout.n_outlier + outlier;
    if (int8_outliers) {
      a.out.outliers[to] = static_cast<int8_t>(q[j]);
    } else {
      a.out.outliers_fp16[to] = float_to_half(w[j]);
    }
  }
  __syncwarp();
  store_nibbles(a, row, q_bytes, lane);
  __syncwarp();
}

__global__ void __launch_bounds__(kWarps * 32) gptq_block_kernel(const BlockArguments a) {
  extern __shared__ float shared[];
  for (int i = static_cast<int>(threadIdx.x); i < kBlock * kBlock; i += kWarps * 32) {
    const int r = i / kBlock, c = i % kBlock;
    const bool inside = r < a.width && c < a.width;
    shared[i] = inside ? a.upper.data[(a.begin + r) * a.upper.stride + a.begin + c] : 0.0f;
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  auto* q_bytes = reinterpret_cast<int8_t*>(shared + kBlock * kBlock) + warp * kBlock;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t row = int64_t{blockIdx.x} * kWarps + warp; row < a.weight.rows; row += step) {
    quantize_row(a, row, shared, q_bytes);
  }
}

__global__ void importance_kernel(MatrixView<const float> upper, double* importance) {
  const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c < upper.rows) importance[c] = quant_scales::gptq_importance(upper.data[c * (upper.stride + 1)]);
}

}  // namespace

void gptq_weight(const DeviceContext& context, const GptqWeight& op) {
  Device& device = of(context);
  const MatrixView<float> weight = op.weight;
  const auto k = static_cast<int>(weight.cols), rows = static_cast<int>(weight.rows);
  const int block = static_cast<int>(std::min<int64_t>(op.block_size, kBlock));
  auto* importance = static_cast<double*>(device.scratch(
      sizeof(double) * static_cast<size_t>(k) + sizeof(float) * static_cast<size_t>(rows) * (kBlock + 1)));
  auto* errors = reinterpret_cast<float*>(importance + k);
  float* units = errors + int64_t{rows} * kBlock;
  ScaleRule rule = op.rule;
  if (op.out.layout.integer_scales && rule.importance == nullptr) {
    constexpr int kThreads = 128;
    launch(importance_kernel, dim3(static_cast<unsigned>((k + kThreads - 1) / kThreads)), dim3(kThreads), 0,
           device.stream(), {.dependent = false}, op.upper, importance);
    rule.importance = importance;
  }
  const int grid = std::min((rows + kWarps - 1) / kWarps, device.sm_count() * kGridPerSm);
  for (int begin = 0; begin < k; begin += block) {
    const int end = std::min(begin + block, k);
    const BlockArguments arguments{weight, op.upper, rule, op.out, errors, units, begin, end - begin};
    launch(gptq_block_kernel, dim3(static_cast<unsigned>(grid)), dim3(kWarps * 32), kSharedBytes,
           device.stream(), {.dependent = false}, arguments);
    if (end == k) break;
    // Row-major W -= E U is column-major W^T -= U^T E^T.
    const float minus_one = -1.0f, one = 1.0f;
    ATOM_LIBRARY_CHECK(cublasSgemm(device.cublas(), CUBLAS_OP_N, CUBLAS_OP_N, k - end, rows, end - begin,
                                   &minus_one, op.upper.data + begin * op.upper.stride + end,
                                   static_cast<int>(op.upper.stride), errors, kBlock, &one, weight.data + end,
                                   static_cast<int>(weight.stride)));
  }
}

}  // namespace atom::cuda::quant
