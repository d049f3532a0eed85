#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/linear.h"

namespace atom {

/// Chooses weight scales. A fixed clip scales the largest magnitude of a group; a searched one is the best of
/// a grid by the error of the group's weights, each weighted by the sum of squares of its channel.
class ScaleChooser {
 public:
  /// `importance` [k] in the layout's order, for the search; empty for the fixed clip.
  ScaleChooser(float clip, std::vector<double> importance)
      : clip_(clip), importance_(std::move(importance)) {}

  /// The fp16 scale, as float, of INT4 `weights`, which are channels [begin, begin + weights.size()).
  float normal_scale(std::span<const float> weights, int64_t begin) const;
  /// The fp16 scale, as float, of INT8 outlier weights: never clipped.
  static float outlier_scale(std::span<const float> weights);

 private:
  float clip_;
  std::vector<double> importance_;
};

/// Quantizes `weight` [n, k], columns in the layout's order, each to the nearest value.
LowBitStorage round_to_nearest(const DeviceContext& device, MatrixView<const float> weight,
                               const ChannelLayout& layout, const ScaleChooser& chooser);

/// One row while it is quantized column by column, ascending: picks the scale at the head of each group from
/// the row's values at that moment, and stores quantized values and scales.
class RowQuantizer {
 public:
  RowQuantizer(LowBitStorage& storage, int64_t row, const ScaleChooser& chooser);

  /// Quantizes column `column` of `values` [k] (the whole row as it now is); returns what it will be read
  /// back as.
  float quantize(std::span<const float> values, int64_t column);

 private:
  LowBitStorage& storage_;
  int64_t row_;
  const ScaleChooser& chooser_;
  float scale_ = 0;
  float inverse_ = 0;
};

}  // namespace atom
