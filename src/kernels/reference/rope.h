#pragma once

#include "kernels/ops.h"

namespace atom::reference {

/// Scalar definition of RopeAppend (kernels/ops.h), in this order for every token:
/// 1. RoPE of the half-split pairs (i, i + head_dim / 2) of each head of q and k (numerics::rotate).
/// 2. Where `rotate`: the normalized fast Walsh-Hadamard transform of each head of q and k in Sylvester
///    order, distances 1, 2, 4, ..., head_dim / 2 (a + b, a - b), then times float(1 / sqrt(head_dim)).
///    head_dim must be a power of two.
/// 3. Where the slot is not negative: k and v are stored in the cache's format; f16 rounds to nearest even,
///    int8 and int4 as numerics::kv_params says (paper section 4.4).
void rope_append(const DeviceContext& device, const RopeAppend& op);

}  // namespace atom::reference
