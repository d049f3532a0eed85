#pragma once

#include "kernels/ops.h"

/// The vectorized implementations of the linear ops on CPUs, for the table in kernels/linear_table.cpp.
namespace atom::cpu {

bool linear_float_openblas_supports(const DeviceContext& device, const LinearFloat& op);
void linear_float_openblas(const DeviceContext& device, const LinearFloat& op);

bool linear_float_avx2_supports(const DeviceContext& device, const LinearFloat& op);
void linear_float_avx2(const DeviceContext& device, const LinearFloat& op);
bool linear_float_avx512_supports(const DeviceContext& device, const LinearFloat& op);
void linear_float_avx512(const DeviceContext& device, const LinearFloat& op);

bool linear_low_bit_avx2_supports(const DeviceContext& device, const LinearLowBit& op);
void linear_low_bit_avx2(const DeviceContext& device, const LinearLowBit& op);
bool linear_low_bit_avx512_supports(const DeviceContext& device, const LinearLowBit& op);
void linear_low_bit_avx512(const DeviceContext& device, const LinearLowBit& op);
bool linear_low_bit_avx512vnni_supports(const DeviceContext& device, const LinearLowBit& op);
void linear_low_bit_avx512vnni(const DeviceContext& device, const LinearLowBit& op);

bool linear_weight_only_supports(const DeviceContext& device, const LinearWeightOnly& op);
void linear_weight_only(const DeviceContext& device, const LinearWeightOnly& op);

}  // namespace atom::cpu
