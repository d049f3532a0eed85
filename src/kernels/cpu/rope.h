#pragma once

#include "kernels/cpu/rope_rows.h"
#include "kernels/ops.h"

namespace atom::cpu {

/// Whether the head size suits the vectors of `rows`.
bool supports_rope_append(const RopeRows& rows, const RopeAppend& op);

/// RopeAppend (kernels/ops.h) over the head primitives of an instruction set: rotation, Hadamard transform,
/// quantization and store of a token's heads while they are in L1; bit-identical to kernels/reference/rope.h.
/// Tokens are divided over the pool when there are enough of them. Source: paper section 4.4.
void rope_append(const RopeRows& rows, const DeviceContext& device, const RopeAppend& op);

}  // namespace atom::cpu
