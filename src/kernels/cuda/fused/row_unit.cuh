#pragma once

#include "kernels/integer_scales.h"
#include "kernels/quantized.h"

namespace atom::cuda::fused {

/// integer_scales::unit_steps() of a row of canonical weights, by a warp whose lanes share the scales; the
/// result is in all of them.
__device__ inline int64_t row_unit_steps(const LowBitWeight& w, int64_t row) {
  const int64_t groups = w.layout.groups();
  int64_t divisor = w.layout.n_outlier > 0 ? integer_scales::steps_of(w.outlier_scales[row]) : 0;
  for (int64_t g = threadIdx.x % 32; g < groups; g += 32) {
    divisor = integer_scales::common_divisor(integer_scales::steps_of(w.scales[row * groups + g]), divisor);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    divisor = integer_scales::common_divisor(divisor, __shfl_xor_sync(~0u, divisor, distance));
  }
  return divisor;
}

}  // namespace atom::cuda::fused
