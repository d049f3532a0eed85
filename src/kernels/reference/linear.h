#pragma once

#include "kernels/ops.h"

namespace atom::reference {

/// The definition of LinearFloat: every output is one fma chain over ascending channels from 0.
void linear_float(const DeviceContext& device, const LinearFloat& op);

/// The definition of LinearLowBit, for weights in any layout of a CPU.
void linear_low_bit(const DeviceContext& device, const LinearLowBit& op);

/// The definition of LinearWeightOnly, for canonical weights.
void linear_weight_only(const DeviceContext& device, const LinearWeightOnly& op);

}  // namespace atom::reference
