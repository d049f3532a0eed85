#pragma once

#include "kernels/ops.h"

namespace atom::reference {

/// Sample of kernels/ops.h, row by row, by sorting. What every other implementation has to equal.
void sample(const DeviceContext& device, const Sample& op);

}  // namespace atom::reference
