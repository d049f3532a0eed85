#pragma once

#include <cstdint>

#include "kernels/quant_ops.h"
#include "kernels/quant_scales.h"

/// The scale of a group of weights, chosen by a warp; the rule is that of cpu/quant/row_quantizer.cpp. Each
/// function takes `visit`, which calls f(column, weight) for this lane's share of the group; results are in
/// every lane.
namespace atom::cuda::quant {

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

template <class Visit>
__device__ float normal_scale(const ScaleRule& rule, const Visit& visit) {
  using namespace quant_scales;
  const float largest = largest_magnitude(visit);
  if (rule.importance == nullptr) return numerics::symmetric_scale(largest, rule.clip, kInt4Max);
  float best_scale = 0;
  double best_error = 0;
  for (int step = 0; step <= kSearchSteps; ++step) {
    const float scale = candidate_scale(largest, step);
    const float inverse = numerics::inverse_scale(scale);
    double error = 0;
    visit([&](int column, float weight) {
      error += squared_error(weight, rule.importance[column], scale, inverse);
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
__device__ float outlier_scale(const Visit& visit) {
  return numerics::symmetric_scale(largest_magnitude(visit), 1.0f, quant_scales::kInt8Max);
}

}  // namespace atom::cuda::quant
