#pragma once

#include <vector>

#include "tensor/device.h"
#include "tensor/tensor.h"

namespace atom {

/// Second moments of a linear layer's input over the calibration set: H = sum of x xᵀ (GPTQ's Hessian up to a
/// factor), and its diagonal alone where no more is needed. In the device's memory.
class Hessian {
 public:
  /// `k` channels. `diagonal_only` keeps sums of squares alone.
  Hessian(const DeviceContext& device, int64_t k, bool diagonal_only);

  /// Adds x [tokens, k]. The order of summation does not depend on the number of threads.
  void add(const DeviceContext& device, MatrixView<const float> x);

  int64_t tokens() const { return tokens_; }
  bool diagonal_only() const { return diagonal_only_; }
  /// Sum of squares of every channel.
  std::vector<double> diagonal(const DeviceContext& device) const;
  /// H on and above the diagonal. Not for diagonal_only.
  MatrixView<const float> upper() const { return upper_.view(); }

 private:
  int64_t k_;
  bool diagonal_only_;
  int64_t tokens_ = 0;
  Matrix<float> upper_;
  Buffer<double> squares_;
};

}  // namespace atom
