#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace atom::cuda {

/// RandomFill of kernels/ops.h into device memory. Throws Error when the launch fails.
void random_fill(const RandomFill& op, cudaStream_t stream);

}  // namespace atom::cuda
