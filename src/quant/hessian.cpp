#include "quant/hessian.h"

#include <algorithm>
#include <cassert>

#include <cblas.h>

#include "quant/parallel.h"

namespace atom {
namespace {

/// Columns of a tile: tiles are what threads share out, so the sums are the same for any number of them.
constexpr int64_t kTile = 192;

}  // namespace

Hessian::Hessian(int64_t k, bool diagonal_only) : k_(k), diagonal_only_(diagonal_only) {
  if (diagonal_only) {
    squares_.assign(static_cast<size_t>(k), 0.0);
  } else {
    upper_ = Matrix<float>(k, k);
  }
}

void Hessian::add(const DeviceContext& device, MatrixView<const float> x) {
  assert(x.cols == k_);
  tokens_ += x.rows;
  const int64_t tiles = (k_ + kTile - 1) / kTile;
  if (diagonal_only_) {
    parallel_rows(
        device, tiles,
        [&](int64_t tile) {
          const int64_t end = std::min(k_, (tile + 1) * kTile);
          for (int64_t t = 0; t < x.rows; ++t) {
            const float* row = x.row(t);
            for (int64_t c = tile * kTile; c < end; ++c) {
              squares_[static_cast<size_t>(c)] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
            }
          }
        },
        1);
    return;
  }
  parallel_rows(
      device, tiles * tiles,
      [&](int64_t index) {
        const int64_t i = index / tiles;
        const int64_t j = index % tiles;
        if (j < i) return;
        const int64_t rows = std::min(kTile, k_ - i * kTile);
        const int64_t cols = std::min(kTile, k_ - j * kTile);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(rows), static_cast<int>(cols),
                    static_cast<int>(x.rows), 1.0f, x.data + i * kTile, static_cast<int>(x.stride),
                    x.data + j * kTile, static_cast<int>(x.stride), 1.0f, &upper_(i * kTile, j * kTile),
                    static_cast<int>(k_));
      },
      1);
}

std::vector<double> Hessian::diagonal() const {
  if (diagonal_only_) return squares_;
  std::vector<double> out(static_cast<size_t>(k_));
  for (int64_t i = 0; i < k_; ++i) out[static_cast<size_t>(i)] = static_cast<double>(upper_(i, i));
  return out;
}

Matrix<double> Hessian::permuted(const std::vector<int32_t>& permutation) const {
  assert(!diagonal_only_ && static_cast<int64_t>(permutation.size()) == k_);
  Matrix<double> out(k_, k_);
  for (int64_t i = 0; i < k_; ++i) {
    const int64_t a = permutation[static_cast<size_t>(i)];
    for (int64_t j = 0; j < k_; ++j) {
      const int64_t b = permutation[static_cast<size_t>(j)];
      out(i, j) = static_cast<double>(upper_(std::min(a, b), std::max(a, b)));
    }
  }
  return out;
}

}  // namespace atom
