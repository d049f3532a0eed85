#pragma once

#include "kernels/quant_ops.h"

/// The CPU's implementations of the ops of kernels/quant_ops.h: OpenBLAS and LAPACK where there are matrix
/// products and factors, rows shared among threads elsewhere. Results do not depend on the number of threads.
namespace atom::cpu {

void copy_rows(const DeviceContext& device, const CopyRows& op);
void gather_columns(const DeviceContext& device, const GatherColumns& op);
void add_gram(const DeviceContext& device, const AddGram& op);
void add_squares(const DeviceContext& device, const AddSquares& op);
void inverse_factor(const DeviceContext& device, const InverseFactor& op);
void round_weight(const DeviceContext& device, const RoundWeight& op);
void gptq_weight(const DeviceContext& device, const GptqWeight& op);
void quantization_loss(const DeviceContext& device, const QuantizationLoss& op);

}  // namespace atom::cpu
