#pragma once

#include "kernels/ops.h"

namespace atom::reference {

/// Sample of kernels/ops.h, row by row, by sorting. What every other implementation has to equal.
void sample(const DeviceContext& device, const Sample& op);

/// out[i] = sampling::relative_probability(logits[i], largest, inverse_temperature) of n logits.
using RelativeProbabilities = void (*)(const float* logits, int64_t n, float largest,
                                       float inverse_temperature, float* out);

/// The same by another implementation of what takes most of the time.
void sample(const DeviceContext& device, const Sample& op, RelativeProbabilities relative_probabilities);

}  // namespace atom::reference
