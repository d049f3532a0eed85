#pragma once

#include <cstdint>

#include "kernels/quant_ops.h"
#include "kernels/quant_scales.h"

/// The scale of a group of weights, chosen by a warp; the rule is that of cpu/quant/row_quantizer.cpp. Each
/// function takes `visit`, which calls f(column, weight) for this lane's share of the group, ascending;
/// results are in every lane. Sums of errors are the CPU's to the bit where lane l has the columns that are l
/// mod 32.
namespace atom::cuda::quant {

static_assert(quant_scales::kErrorSums == 32, "a lane for each of the sums");

__device__ inline double warp_sum(double x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
  return x;
}

/// The largest magnitude; NaN is passed over.
template <class Visit>
__device__ float largest_magnitude(const Visit& visit) {
  float largest = 0;
  visit([&](int, float weight) { largest = numerics::max_magnitude(largest, weight); });
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
  }
  return largest;
}

/// How the scales of a row are chosen.
struct RowRule {
  ScaleRule rule;
  bool integer;
  /// Of integer scales.
  float unit;
};

/// The unit of a row that nothing has been quantized of; `values` [k]. Scales grow with magnitudes: the
/// largest of all groups is that of the largest magnitude.
__device__ inline float row_unit(const ScaleRule& rule, const ChannelLayout& layout, const float* values) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto largest = [&](int64_t begin, int64_t end) {
    return largest_magnitude([&](const auto& f) {
      for (int64_t i = begin + lane; i < end; i += 32) f(static_cast<int>(i), values[i]);
    });
  };
  const float group =
      numerics::symmetric_scale(largest(0, layout.k_normal()), rule.clip, quant_scales::kInt4Max);
  return integer_scales::weight_unit(group,
                                     quant_scales::outlier_scale(largest(layout.k_normal(), layout.k)));
}

template <class Visit>
__device__ float group_scale(const RowRule& row, const Visit& visit) {
  using namespace quant_scales;
  const ScaleRule& rule = row.rule;
  // The multiples of a unit do not depend on it.
  const float largest = row.integer ? 0.0f : largest_magnitude(visit);
  if (!row.integer && rule.importance == nullptr) {
    return numerics::symmetric_scale(largest, rule.clip, kInt4Max);
  }
  const int count = row.integer ? multiple_count(row.unit) : kSearchSteps + 1;
  float best_scale = 0;
  double best_error = 0;
  for (int step = 0; step < count; ++step) {
    const float scale = row.integer ? candidate_multiple(row.unit, step) : candidate_scale(largest, step);
    const float inverse = numerics::inverse_scale(scale);
    double error = 0;
    visit([&](int column, float weight) {
      const double importance = rule.importance == nullptr ? 1.0 : rule.importance[column];
      error += squared_error(weight, importance, scale, inverse);
    });
    error = warp_sum(error);
    if (step == 0 || error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

template <class Visit>
__device__ float outlier_scale(const RowRule& row, const Visit& visit) {
  const float scale = quant_scales::outlier_scale(largest_magnitude(visit));
  return row.integer ? quant_scales::outlier_multiple(scale, row.unit) : scale;
}

}  // namespace atom::cuda::quant
