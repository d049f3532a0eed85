#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace atom::cuda {

/// PickColumns of kernels/ops.h; all pointers are device memory. Throws Error when the launch fails.
void pick_columns(const PickColumns& op, cudaStream_t stream);

}  // namespace atom::cuda
