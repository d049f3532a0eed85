#pragma once

#include "kernels/ops.h"

/// Scalar definitions of ops on rows of logits (kernels/ops.h); what every other implementation has to equal
/// bit for bit. They are fast enough to be what a CPU runs: a row is read once.
namespace atom::reference {

void change_logits(const DeviceContext& device, const ChangeLogits& op);
void top_columns(const DeviceContext& device, const TopColumns& op);

}  // namespace atom::reference
