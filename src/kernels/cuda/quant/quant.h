#pragma once

#include "kernels/quant_ops.h"

/// The ops of kernels/quant_ops.h on a GPU: cuBLAS and cuSOLVER for matrix products and factors, kernels for
/// the rest. Deterministic: no atomics, and sums in an order that depends on shapes alone.
namespace atom::cuda::quant {

void copy_rows(const DeviceContext& context, const CopyRows& op);
void gather_columns(const DeviceContext& context, const GatherColumns& op);
void add_gram(const DeviceContext& context, const AddGram& op);
void add_squares(const DeviceContext& context, const AddSquares& op);
void inverse_factor(const DeviceContext& context, const InverseFactor& op);
void round_weight(const DeviceContext& context, const RoundWeight& op);
void gptq_weight(const DeviceContext& context, const GptqWeight& op);
void quantization_loss(const DeviceContext& context, const QuantizationLoss& op);

}  // namespace atom::cuda::quant
