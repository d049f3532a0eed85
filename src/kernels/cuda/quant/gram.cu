#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/runtime.h"

// Second moments of a layer's input (AddGram, AddSquares).
//
// squares: x [tokens, k] float. A thread takes a column and 256 rows and sums them in double; the partial
// sums [chunks][k] are then added in order, a thread a column. Bound by memory: x is read once.

namespace atom::cuda::quant {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kChunk = 256;

__global__ void __launch_bounds__(kThreads) sum_squares_kernel(MatrixView<const float> x, double* partial) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= x.cols) return;
  const int64_t begin = int64_t{blockIdx.y} * kChunk;
  const int64_t end = min(begin + kChunk, x.rows);
  double sum = 0;
  for (int64_t t = begin; t < end; ++t) {
    const auto value = static_cast<double>(x.data[t * x.stride + c]);
    sum += value * value;
  }
  partial[blockIdx.y * x.cols + c] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_partial_kernel(const double* partial, int64_t chunks, int64_t k, double* squares) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= k) return;
  double sum = squares[c];
  for (int64_t i = 0; i < chunks; ++i) sum += partial[i * k + c];
  squares[c] = sum;
}

}  // namespace

void add_gram(const DeviceContext& context, const AddGram& op) {
  // Row-major upper is column-major lower.
  const float one = 1.0f;
  ATOM_LIBRARY_CHECK(cublasSsyrk(of(context).cublas(), CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N,
                                 static_cast<int>(op.x.cols), static_cast<int>(op.x.rows), &one, op.x.data,
                                 static_cast<int>(op.x.stride), &one, op.gram.data,
                                 static_cast<int>(op.gram.stride)));
}

void add_squares(const DeviceContext& context, const AddSquares& op) {
  Device& device = of(context);
  const int64_t k = op.x.cols;
  const int64_t chunks = (op.x.rows + kChunk - 1) / kChunk;
  if (chunks == 0) return;
  auto* partial = static_cast<double*>(device.scratch(sizeof(double) * static_cast<size_t>(chunks * k)));
  const auto tiles = static_cast<unsigned>((k + kThreads - 1) / kThreads);
  launch(sum_squares_kernel, dim3(tiles, static_cast<unsigned>(chunks)), dim3(kThreads), 0, device.stream(),
         {.dependent = false}, op.x, partial);
  launch(add_partial_kernel, dim3(tiles), dim3(kThreads), 0, device.stream(), {.dependent = false}, partial,
         chunks, k, op.squares);
}

}  // namespace atom::cuda::quant
