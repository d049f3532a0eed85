#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/quant/scales.cuh"
#include "kernels/cuda/runtime.h"

// What quantization of activations loses in the outputs (QuantizationLoss).
//
// x [tokens, k] float, weight [n, k] float. A kernel writes lost [tokens, k] = x in the layout's order less
// the dequantized values, a block a token; cuBLAS makes out [tokens, n] of it; a second kernel sums the
// squares of a token's outputs in double, threads over columns, then a tree over threads; the host adds up
// the tokens in order. For samples of a thousand tokens: the product dominates.

namespace atom::cuda::quant {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// The values of quantized activations, in either layout of device memory.
struct QuantizedView {
  const int8_t* values;
  const float* scales;
  const float* units;
  const float* outliers_fp16;
  ChannelLayout layout;
  ActivationBlocks blocks;
  bool blocked;
  int64_t stride;
  int64_t outlier_offset;

  /// In blocks, normal values are already times their group's multiplier. All products are exact.
  __device__ float normal(int64_t token, int64_t c) const {
    if (blocked) return value(token, 0, c) * scales[blocks.unit(token)];
    const float scale = scales[token * (layout.groups() + 1) + c / layout.group];
    return static_cast<float>(values[token * stride + c]) * (scale * unit(token));
  }

  __device__ float outlier(int64_t token, int64_t c) const {
    if (layout.outlier_type == OutlierType::fp16) return outliers_fp16[token * layout.n_outlier + c];
    const int64_t groups = layout.groups();
    if (blocked) {
      return value(token, groups, c) *
             (scales[blocks.outlier_multiplier(token)] * scales[blocks.unit(token)]);
    }
    return static_cast<float>(values[token * stride + outlier_offset + c]) *
           (scales[token * (groups + 1) + groups] * unit(token));
  }

 private:
  __device__ float unit(int64_t token) const { return layout.integer_scales ? units[token] : 1.0f; }
  __device__ float value(int64_t token, int64_t first_block, int64_t c) const {
    const int64_t block = first_block + c / kUnitChannels;
    return static_cast<float>(values[blocks.value(token, block, static_cast<int>(c % kUnitChannels))]);
  }
};

__global__ void __launch_bounds__(kThreads) lost_kernel(MatrixView<const float> x, const int32_t* permutation,
                                                        const QuantizedView quantized, float* lost) {
  const int64_t token = blockIdx.x, k = x.cols, normal = quantized.layout.k_normal();
  for (int64_t c = threadIdx.x; c < k; c += kThreads) {
    const float kept = c < normal ? quantized.normal(token, c) : quantized.outlier(token, c - normal);
    lost[token * k + c] = x.data[token * x.stride + permutation[c]] - kept;
  }
}

__global__ void __launch_bounds__(kThreads) row_squares_kernel(MatrixView<const float> x, double* sums) {
  __shared__ double warps[kWarps];
  const int64_t row = blockIdx.x;
  double sum = 0;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const auto value = static_cast<double>(x.data[row * x.stride + c]);
    sum += value * value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kWarps; ++i) sum += warps[i];
  sums[row] = sum;
}

}  // namespace

void quantization_loss(const DeviceContext& context, const QuantizationLoss& op) {
  Device& device = of(context);
  const QuantizedActivations& quantized = *op.quantized;
  const int64_t tokens = op.x.rows, k = op.weight.cols, n = op.weight.rows;
  *op.loss = 0;
  if (tokens == 0) return;
  const QuantizedView view{quantized.values(),        quantized.scales(), quantized.units(),
                           quantized.outliers_fp16(), quantized.layout(), quantized.blocks(),
                           quantized.is_blocked(),    quantized.stride(), quantized.outlier_offset()};
  Buffer<float> lost(static_cast<size_t>(tokens * k), context.memory);
  Buffer<float> out(static_cast<size_t>(tokens * n), context.memory);
  Buffer<double> sums(static_cast<size_t>(tokens), context.memory);
  const dim3 grid(static_cast<unsigned>(tokens)), block(kThreads);
  launch(lost_kernel, grid, block, 0, device.stream(), {.dependent = false}, op.x, op.permutation, view,
         lost.data());
  // Row-major out = lost weight^T is column-major out^T = weight lost^T.
  const float one = 1.0f, zero = 0.0f;
  ATOM_LIBRARY_CHECK(cublasSgemm(device.cublas(), CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(n),
                                 static_cast<int>(tokens), static_cast<int>(k), &one, op.weight.data,
                                 static_cast<int>(op.weight.stride), lost.data(), static_cast<int>(k), &zero,
                                 out.data(), static_cast<int>(n)));
  launch(row_squares_kernel, grid, block, 0, device.stream(), {.dependent = false},
         MatrixView<const float>(out.data(), tokens, n), sums.data());
  for (const double sum : sums.clone()) *op.loss += sum;
}

}  // namespace atom::cuda::quant
