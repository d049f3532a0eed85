#include <algorithm>
#include <cassert>

#include <cblas.h>
#include <lapacke.h>

#include "kernels/cpu/quant/parallel.h"
#include "kernels/cpu/quant/quant.h"

// Second moments of a layer's input, and the factor of their inverse that GPTQ needs.

namespace atom::cpu {
namespace {

/// Columns of a tile: tiles are what threads share out, so the sums are the same for any number of them.
constexpr int64_t kTile = 192;

/// H -> upper Cholesky factor of H^-1, in place. Row-major upper is column-major lower. False: not positive
/// definite.
bool factor_inverse(Matrix<double>& h) {
  const auto k = static_cast<lapack_int>(h.rows());
  if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', k, h.data(), k) != 0) return false;
  if (LAPACKE_dpotri(LAPACK_COL_MAJOR, 'L', k, h.data(), k) != 0) return false;
  return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', k, h.data(), k) == 0;
}

}  // namespace

void add_gram(const DeviceContext& device, const AddGram& op) {
  const int64_t k = op.gram.cols;
  assert(op.x.cols == k && op.gram.rows == k);
  const int64_t tiles = (k + kTile - 1) / kTile;
  parallel_rows(
      device, tiles * tiles,
      [&](int64_t index) {
        const int64_t i = index / tiles;
        const int64_t j = index % tiles;
        if (j < i) return;
        const int64_t rows = std::min(kTile, k - i * kTile);
        const int64_t cols = std::min(kTile, k - j * kTile);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(rows), static_cast<int>(cols),
                    static_cast<int>(op.x.rows), 1.0f, op.x.data + i * kTile, static_cast<int>(op.x.stride),
                    op.x.data + j * kTile, static_cast<int>(op.x.stride), 1.0f,
                    &op.gram(i * kTile, j * kTile), static_cast<int>(op.gram.stride));
      },
      1);
}

void add_squares(const DeviceContext& device, const AddSquares& op) {
  const int64_t k = op.x.cols;
  const int64_t tiles = (k + kTile - 1) / kTile;
  parallel_rows(
      device, tiles,
      [&](int64_t tile) {
        const int64_t end = std::min(k, (tile + 1) * kTile);
        for (int64_t t = 0; t < op.x.rows; ++t) {
          const float* row = op.x.row(t);
          for (int64_t c = tile * kTile; c < end; ++c) {
            op.squares[c] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
          }
        }
      },
      1);
}

void inverse_factor(const DeviceContext& device, const InverseFactor& op) {
  const int64_t k = op.gram.rows;
  Matrix<double> work(k, k);
  parallel_rows(device, k, [&](int64_t i) {
    const int64_t a = op.permutation[i];
    for (int64_t j = 0; j < k; ++j) {
      const int64_t b = op.permutation[j];
      work(i, j) = static_cast<double>(op.gram(std::min(a, b), std::max(a, b)));
    }
    if (work(i, i) <= 0) work(i, i) = 1.0;
    work(i, i) += op.shift;
  });
  *op.positive_definite = factor_inverse(work);
  if (!*op.positive_definite) return;
  parallel_rows(device, k, [&](int64_t i) {
    float* row = op.upper.row(i);
    std::fill_n(row, i, 0.0f);
    for (int64_t j = i; j < k; ++j) row[j] = static_cast<float>(work(i, j));
  });
}

}  // namespace atom::cpu
