// LinearFloat for f32 weights by OpenBLAS: the dense baseline. y [m, n] = x [m, k] * w [n, k]^T.
// BLAS itself runs on one thread; the outputs are divided by columns of y (rows of w) among the pool's
// threads, one sgemm a piece, or sgemv for a single token. The order of additions is
// BLAS's own and depends on m, so results agree with the reference only up to rounding.

#include <mutex>

#include <cblas.h>

#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/partition.h"

namespace atom::cpu {
namespace {

/// Columns a call computes. Independent of the number of threads, so that results are too.
constexpr int64_t kColumns = 192;

blasint as_blas(int64_t value) {
  return static_cast<blasint>(value);
}

}  // namespace

bool linear_float_openblas_supports(const DeviceContext& device, const LinearFloat& op) {
  constexpr int64_t kLimit = INT32_MAX;
  return device.isa >= CpuIsa::avx2 && op.dtype == DType::f32 && op.x.rows <= kLimit &&
         op.x.stride <= kLimit && op.y.cols <= kLimit && op.y.stride <= kLimit;
}

void linear_float_openblas(const DeviceContext& device, const LinearFloat& op) {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
  const auto* w = static_cast<const float*>(op.w);
  const MatrixView<const float> x = op.x.floats();
  const int64_t m = x.rows;
  const int64_t n = op.y.cols;
  const int64_t k = x.cols;
  if (m == 0 || n == 0) return;
  const float beta = op.accumulate ? 1.0f : 0.0f;
  for_chunks(device, n, kColumns, [&](int64_t begin, int64_t end, int) {
    const float* rows = w + begin * k;
    if (m == 1) {
      cblas_sgemv(CblasRowMajor, CblasNoTrans, as_blas(end - begin), as_blas(k), 1.0f, rows, as_blas(k),
                  x.data, 1, beta, op.y.data + begin, 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_blas(m), as_blas(end - begin), as_blas(k), 1.0f,
                  x.data, as_blas(x.stride), rows, as_blas(k), beta, op.y.data + begin, as_blas(op.y.stride));
    }
  });
}

}  // namespace atom::cpu
