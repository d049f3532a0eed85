#pragma once

#include <cstdint>
#include <vector>

#include "kernels/quantized.h"
#include "tensor/device.h"
#include "tensor/tensor.h"

namespace atom {

/// Rows of a linear layer's input, picked evenly over the calibration set, to search the activation clip on.
/// In the device's memory.
class ActivationSample {
 public:
  /// Up to `capacity` rows of `total_rows` that will be offered, `k` channels each. A capacity of 0 keeps
  /// none.
  ActivationSample(const DeviceContext& device, int64_t capacity, int64_t total_rows, int64_t k);

  void offer(const DeviceContext& device, MatrixView<const float> x);
  MatrixView<const float> rows() const { return rows_.view().row_range(0, kept_); }

 private:
  int64_t stride_;
  int64_t seen_ = 0;
  int64_t kept_ = 0;
  Matrix<float> rows_;
};

/// The clip, from 1 down to 0.5, whose quantization of `sample` [rows, k] changes sample * weightᵀ least.
/// `weight` [n, k] has its columns in the layout's order, `permutation` (on the device, as both) gives that
/// order. `spec.clip` is not read.
float search_activation_clip(const DeviceContext& device, MatrixView<const float> sample,
                             MatrixView<const float> weight, const int32_t* permutation,
                             const ActivationSpec& spec);

}  // namespace atom
