#pragma once

#include "kernels/ops.h"

/// Scalar definitions of the element-wise and quantizing ops of kernels/ops.h; shapes are documented there.
///
/// They are what every other backend has to equal bit for bit: sums of squares in 16 interleaved partial sums
/// (numerics::sum_of_squares), RMSNorm as (x * factor) * weight, scales as in numerics::symmetric_scale,
/// quantized values as in numerics::quantize. Source: paper sections 4.1 to 4.3.
namespace atom::reference {

void embedding_lookup(const DeviceContext& device, const EmbeddingLookup& op);
void rms_norm(const DeviceContext& device, const RmsNorm& op);
void rms_norm_quantize(const DeviceContext& device, const RmsNormQuantize& op);
void reorder_quantize(const DeviceContext& device, const ReorderQuantize& op);
void silu_mul(const DeviceContext& device, const SiluMul& op);
void silu_mul_quantize(const DeviceContext& device, const SiluMulQuantize& op);
void add_bias(const DeviceContext& device, const AddBias& op);
void head_norm(const DeviceContext& device, const HeadNorm& op);
void log_sum_exp(const DeviceContext& device, const LogSumExp& op);
void random_fill(const DeviceContext& device, const RandomFill& op);
void pick_columns(const DeviceContext& device, const PickColumns& op);

}  // namespace atom::reference
