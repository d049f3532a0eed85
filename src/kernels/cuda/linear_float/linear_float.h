#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace atom::cuda {

/// LinearFloat of kernels/ops.h in the contract's order: one accumulator an output, fma over ascending
/// channels. Bit-identical with the CPU's kernels; far from the speed of cuBLAS. All pointers are device
/// memory. Throws Error when the launch fails.
void linear_float_exact(const LinearFloat& op, cudaStream_t stream);

}  // namespace atom::cuda
