#include "quant/gptq.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include <cblas.h>
#include <lapacke.h>

#include "base/error.h"
#include "base/log.h"
#include "quant/parallel.h"

namespace atom {
namespace {

constexpr int kDampingAttempts = 4;
/// Rows that one call of the matrix product takes: fixed, so that results do not depend on the number of
/// threads.
constexpr int64_t kRowTile = 64;

/// H -> upper Cholesky factor of H^-1, in place. Row-major upper is column-major lower. False: not positive
/// definite.
bool factor_inverse(Matrix<double>& h) {
  const auto k = static_cast<lapack_int>(h.rows());
  if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', k, h.data(), k) != 0) return false;
  if (LAPACKE_dpotri(LAPACK_COL_MAJOR, 'L', k, h.data(), k) != 0) return false;
  return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', k, h.data(), k) == 0;
}

}  // namespace

GptqFactor::GptqFactor(Matrix<double> hessian, float damping, const std::string& name) {
  const int64_t k = hessian.rows();
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) {
    if (hessian(i, i) <= 0) hessian(i, i) = 1.0;
    mean += hessian(i, i) / static_cast<double>(k);
  }
  require(std::isfinite(mean), "{}: the calibration set gives activations that are not finite", name);
  double share = static_cast<double>(damping);
  for (int attempt = 0; attempt < kDampingAttempts; ++attempt, share *= 10) {
    Matrix<double> work(k, k);
    std::copy_n(hessian.data(), k * k, work.data());
    for (int64_t i = 0; i < k; ++i) work(i, i) += share * mean;
    if (!factor_inverse(work)) {
      spdlog::warn("{}: the Hessian is not positive definite with a damping of {}; raising it", name, share);
      continue;
    }
    upper_ = Matrix<float>(k, k);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = i; j < k; ++j) upper_(i, j) = static_cast<float>(work(i, j));
    }
    return;
  }
  fail("{}: the Hessian is not positive definite; calibrate on more text or raise the damping", name);
}

LowBitStorage gptq(const DeviceContext& device, MatrixView<float> weight, const ChannelLayout& layout,
                   const GptqFactor& factor, const ScaleChooser& chooser, int64_t block_size) {
  const int64_t k = weight.cols;
  const MatrixView<const float> upper = factor.upper();
  assert(layout.k == k && upper.rows == k);
  LowBitStorage storage(weight.rows, layout);
  const int64_t tiles = (weight.rows + kRowTile - 1) / kRowTile;
  // Rows do not depend on each other: each tile of rows goes through all the columns.
  parallel_rows(
      device, tiles,
      [&](int64_t tile) {
        const int64_t first = tile * kRowTile;
        const int64_t rows = std::min(kRowTile, weight.rows - first);
        std::vector<RowQuantizer> quantizers;
        for (int64_t r = 0; r < rows; ++r) quantizers.emplace_back(storage, first + r, chooser);
        Matrix<float> errors(rows, std::min(block_size, k));
        for (int64_t begin = 0; begin < k; begin += block_size) {
          const int64_t end = std::min(begin + block_size, k);
          for (int64_t r = 0; r < rows; ++r) {
            float* row = weight.row(first + r);
            for (int64_t c = begin; c < end; ++c) {
              const float before = row[c];
              const float after =
                  quantizers[static_cast<size_t>(r)].quantize({row, static_cast<size_t>(k)}, c);
              const float error = (before - after) / upper(c, c);
              errors(r, c - begin) = error;
              row[c] = after;
              const float* factors = upper.row(c);
              for (int64_t j = c + 1; j < end; ++j) row[j] -= error * factors[j];
            }
          }
          if (end == k) break;
          cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(rows),
                      static_cast<int>(k - end), static_cast<int>(end - begin), -1.0f, errors.data(),
                      static_cast<int>(errors.cols()), upper.row(begin) + end, static_cast<int>(upper.stride),
                      1.0f, weight.row(first) + end, static_cast<int>(weight.stride));
        }
      },
      1);
  return storage;
}

}  // namespace atom
