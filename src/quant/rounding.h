#pragma once

#include <cstdint>
#include <span>

#include "kernels/quant_ops.h"
#include "model/linear.h"

namespace atom {

/// Chooses weight scales (ScaleRule). A fixed clip scales the largest magnitude of a group (of integer
/// scales: of a row); a searched scale is the best of a grid by the error of the group's weights, each
/// weighted by the sum of squares of its channel.
class ScaleChooser {
 public:
  explicit ScaleChooser(float clip) : clip_(clip) {}
  /// The search, by `importance` [k] in the layout's order.
  ScaleChooser(const DeviceContext& device, std::span<const double> importance)
      : clip_(1.0f), importance_(Buffer<double>::copy_of(importance, device.memory)) {}

  /// Valid as long as the chooser is.
  ScaleRule rule() const { return {clip_, importance_.data()}; }

 private:
  float clip_;
  Buffer<double> importance_;
};

/// The columns of a weight [n, k] of the host in the order of `columns` (in the device's memory; null: their
/// own), as float in the device's memory.
Matrix<float> float_columns(const DeviceContext& device, const Tensor& weight, const int32_t* columns);

/// Where an op writes `storage`, whose buffers lie in its device's memory.
LowBitTarget target_of(LowBitStorage& storage);

/// `storage` in the host's memory.
LowBitStorage to_host(LowBitStorage storage);

/// Quantizes `weight` [n, k], columns in the layout's order, each to the nearest value. `weight` lies in the
/// device's memory, the result in the host's.
LowBitStorage round_to_nearest(const DeviceContext& device, MatrixView<const float> weight,
                               const ChannelLayout& layout, const ScaleChooser& chooser);

}  // namespace atom
