#include "quant/hessian.h"

#include <cassert>

#include "kernels/quant_ops.h"

namespace atom {

Hessian::Hessian(const DeviceContext& device, int64_t k, bool diagonal_only)
    : k_(k), diagonal_only_(diagonal_only) {
  if (diagonal_only) {
    squares_ = Buffer<double>(static_cast<size_t>(k), device.memory);
  } else {
    upper_ = Matrix<float>(k, k, device.memory);
  }
}

void Hessian::add(const DeviceContext& device, MatrixView<const float> x) {
  assert(x.cols == k_);
  tokens_ += x.rows;
  if (diagonal_only_) {
    run(device, AddSquares{x, squares_.data()});
  } else {
    run(device, AddGram{x, upper_.view()});
  }
}

std::vector<double> Hessian::diagonal(const DeviceContext& device) const {
  if (diagonal_only_) {
    const Buffer<double> squares = squares_.clone();
    return {squares.begin(), squares.end()};
  }
  // The diagonal, seen as a matrix of one column.
  const MatrixView<const float> diagonal(upper_.data(), k_, 1, k_ + 1);
  Buffer<float> values(static_cast<size_t>(k_), device.memory);
  run(device, CopyRows{diagonal, 0, 1, {values.data(), k_, 1}});
  const Buffer<float> host = values.clone();
  return {host.begin(), host.end()};
}

}  // namespace atom
