#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

/// The linear layers of the baselines as ops: cuBLASLt's products of FP16, BF16, INT8 and FP8, and W4A16. For
/// the tables of kernels/cuda/tables.cu; Linear ops of kernels/ops.h with device pointers.
namespace atom::cuda::baseline {

/// f16 and bf16 weights, x of their type (f32 is converted first), float sums; not exact.
bool supports_float(const DeviceContext& device, const LinearFloat& op);
void linear_float(const DeviceContext& device, const LinearFloat& op);

/// Layers of bytes alone (WeightLayout::dense8_sm90). INT8: exact sums, then a pass that scales them: the
/// contract's bits. FP8: the tensor cores' sums, scaled as they are written; not exact.
bool supports_dense8(const DeviceContext& device, const LinearLowBit& op);
void linear_dense8(const DeviceContext& device, const LinearLowBit& op);
/// Canonical weights to that layout.
PreparedWeight pack_dense8(const DeviceContext& device, const PreparedWeight& canonical);

/// WeightLayout::w4a16_sm90, x in f16 (f32 is converted first), float sums; not exact.
bool supports_w4a16(const DeviceContext& device, const LinearWeightOnly& op);
void linear_w4a16(const DeviceContext& device, const LinearWeightOnly& op);
/// Canonical weights to that layout.
PreparedWeight pack_w4a16(const DeviceContext& device, const PreparedWeight& canonical);

/// Canonical weights and f32 x, in the contract's order: weights are dequantized to f16, some rows at a time,
/// and go through linear_float_exact(). Bit-identical with the CPU; slow.
void linear_weight_only_exact(const DeviceContext& device, const LinearWeightOnly& op);

}  // namespace atom::cuda::baseline
