#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace atom::cuda {

/// Sample of kernels/ops.h; all pointers are device memory. Throws Error for rows that are too long, and when
/// the launch fails.
void sample(const Sample& op, cudaStream_t stream);

/// As above, with `cluster` blocks (1, 2, 4 or 8) to a row. For tests and measurements.
void sample(const Sample& op, int cluster, cudaStream_t stream);

}  // namespace atom::cuda
