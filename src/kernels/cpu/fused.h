#pragma once

#include "kernels/cpu/fused_rows.h"
#include "kernels/ops.h"

/// The fused ops of kernels/ops.h on a CPU, over the row primitives of an instruction set; bit-identical to
/// kernels/reference/fused.h.
///
/// One pass per token: channels are normalized (or gated), gathered in the layer's order and quantized block
/// by block (whole groups, about 2,048 channels), so that everything between input and int8 output stays in
/// L1. Tokens are divided over the pool when there are enough of them; one decode token never wakes it.
/// Source: paper section 4.3.
namespace atom::cpu {

void embedding_lookup(const FusedRows& rows, const DeviceContext& device, const EmbeddingLookup& op);
void rms_norm(const FusedRows& rows, const DeviceContext& device, const RmsNorm& op);
void rms_norm_quantize(const FusedRows& rows, const DeviceContext& device, const RmsNormQuantize& op);
void reorder_quantize(const FusedRows& rows, const DeviceContext& device, const ReorderQuantize& op);
void silu_mul(const FusedRows& rows, const DeviceContext& device, const SiluMul& op);
void silu_mul_quantize(const FusedRows& rows, const DeviceContext& device, const SiluMulQuantize& op);
void add_bias(const FusedRows& rows, const DeviceContext& device, const AddBias& op);
void head_norm(const FusedRows& rows, const DeviceContext& device, const HeadNorm& op);
void log_sum_exp(const FusedRows& rows, const DeviceContext& device, const LogSumExp& op);
void sample(const FusedRows& rows, const DeviceContext& device, const Sample& op);

}  // namespace atom::cpu
