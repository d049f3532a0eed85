#pragma once

#include <map>
#include <string>

#include "timing.h"

namespace atom::cli {

/// What this machine can do at most, as measured.
struct Limits {
  /// Bytes a second; copying counts what is read and what is written.
  double read = 0;
  double copy = 0;
  /// Operations a second of large dense products, by Measured::rate.
  std::map<std::string, double> rates;
};

/// Measures them: memory by plain loops or kernels over far more than the caches hold, products by cuBLASLt
/// (bf16, fp8, int8; 8192 x 8192 x 8192) or OpenBLAS (f32, 1024 x 1024 x 1024).
Limits measure_limits(const DeviceContext& device);

}  // namespace atom::cli
