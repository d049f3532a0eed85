#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/quant/quant.h"
#include "kernels/cuda/runtime.h"

// The upper Cholesky factor of an inverse (InverseFactor), without inverting.
//
// With J the reversal of the order of channels, A = J H J has a factor A = V^T V (V upper), hence
// H^-1 = (J V^-1 J) (J V^-1 J)^T, and J V^-1 J is lower: its transpose is the factor that is asked for. One
// Cholesky factorization (cuSOLVER) and one triangular system (cuBLAS) of doubles, k^3 multiplications in
// all, against 4/3 k^3 for factorizing, inverting and factorizing again; and all the reversals are in the
// indices: element (i, j) of the result is element k*k - 1 - (i*k + j) of V^-1 as it lies in memory
// (column-major).

namespace atom::cuda::quant {
namespace {

constexpr int kThreads = 256;

/// a = J H J, both triangles.
__global__ void __launch_bounds__(kThreads)
    reversed_kernel(MatrixView<const float> gram, const int32_t* permutation, double shift, double* a) {
  const int64_t k = gram.cols, row = blockIdx.x;
  const int64_t p = permutation[k - 1 - row];
  for (int64_t c = threadIdx.x; c < k; c += kThreads) {
    const int64_t q = permutation[k - 1 - c];
    auto value = static_cast<double>(gram.data[min(p, q) * gram.stride + max(p, q)]);
    if (c == row) value = (value <= 0 ? 1.0 : value) + shift;
    a[row * k + c] = value;
  }
}

__global__ void __launch_bounds__(kThreads) identity_kernel(double* a, int64_t k) {
  const int64_t row = blockIdx.x;
  for (int64_t c = threadIdx.x; c < k; c += kThreads) a[row * k + c] = c == row ? 1.0 : 0.0;
}

__global__ void __launch_bounds__(kThreads) upper_kernel(const double* inverse, MatrixView<float> upper) {
  const int64_t k = upper.cols, row = blockIdx.x;
  for (int64_t c = threadIdx.x; c < k; c += kThreads) {
    upper.data[row * upper.stride + c] =
        c < row ? 0.0f : static_cast<float>(inverse[k * k - 1 - (row * k + c)]);
  }
}

}  // namespace

void inverse_factor(const DeviceContext& context, const InverseFactor& op) {
  Device& device = of(context);
  const int64_t k = op.gram.cols;
  const auto n = static_cast<int>(k);
  const dim3 grid(static_cast<unsigned>(k)), block(kThreads);
  const auto elements = static_cast<size_t>(k * k);
  Buffer<double> a(elements, context.memory), inverse(elements, context.memory);
  launch(reversed_kernel, grid, block, 0, device.stream(), {.dependent = false}, op.gram, op.permutation,
         op.shift, a.data());

  const cublasFillMode_t uplo = CUBLAS_FILL_MODE_UPPER;
  int work_size = 0;
  ATOM_LIBRARY_CHECK(cusolverDnDpotrf_bufferSize(device.cusolver(), uplo, n, a.data(), n, &work_size));
  Buffer<double> work(static_cast<size_t>(work_size), context.memory);
  Buffer<int> info(1, context.memory);
  ATOM_LIBRARY_CHECK(
      cusolverDnDpotrf(device.cusolver(), uplo, n, a.data(), n, work.data(), work_size, info.data()));
  const int failed_at = info.clone()[0];
  require(failed_at >= 0, "cuSOLVER: cusolverDnDpotrf: wrong argument {}", -failed_at);
  *op.positive_definite = failed_at == 0;
  if (failed_at != 0) return;

  launch(identity_kernel, grid, block, 0, device.stream(), {.dependent = false}, inverse.data(), k);
  const double one = 1.0;
  ATOM_LIBRARY_CHECK(cublasDtrsm(device.cublas(), CUBLAS_SIDE_LEFT, uplo, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT,
                                 n, n, &one, a.data(), n, inverse.data(), n));
  launch(upper_kernel, grid, block, 0, device.stream(), {.dependent = false}, inverse.data(), op.upper);
  device.synchronize();
}

}  // namespace atom::cuda::quant
