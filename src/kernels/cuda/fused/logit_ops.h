#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace atom::cuda {

/// ChangeLogits of kernels/ops.h; all pointers are device memory. Throws Error for arguments that do not fit
/// together, and when the launch fails.
void change_logits(const ChangeLogits& op, cudaStream_t stream);

/// TopColumns, likewise.
void top_columns(const TopColumns& op, cudaStream_t stream);

}  // namespace atom::cuda
