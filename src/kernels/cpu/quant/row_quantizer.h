#pragma once

#include <cstdint>
#include <span>

#include "kernels/quant_ops.h"

namespace atom::cpu {

/// The fp16 scale, as float, that `rule` gives INT4 `weights`, which are channels [begin, begin +
/// weights.size()).
float normal_scale(const ScaleRule& rule, std::span<const float> weights, int64_t begin);

/// As normal_scale, of integer scales: of the multiples of `unit` that with the least error.
float normal_multiple(const ScaleRule& rule, std::span<const float> weights, int64_t begin, float unit);

/// One row while it is quantized column by column, ascending: picks the scale at the head of each group from
/// the row's values at that moment, and stores quantized values and scales. The unit of integer scales is
/// picked at the head of the row.
class RowQuantizer {
 public:
  RowQuantizer(const LowBitTarget& out, int64_t row, const ScaleRule& rule)
      : out_(out), row_(row), rule_(rule) {}

  /// Quantizes column `column` of `values` [k] (the whole row as it now is); returns what it will be read
  /// back as.
  float quantize(std::span<const float> values, int64_t column);

 private:
  /// Channels of the group whose first is `column`.
  std::span<const float> group_at(std::span<const float> values, int64_t column) const;
  float unit_of(std::span<const float> values) const;
  void set_scale(float scale, uint16_t& stored);

  LowBitTarget out_;
  int64_t row_;
  ScaleRule rule_;
  float unit_ = 0;
  float scale_ = 0;
  float inverse_ = 0;
};

}  // namespace atom::cpu
