#pragma once

#include <vector>

#include "kernels/measured.h"
#include "tensor/device.h"

namespace atom::cli {

/// What was measured of one implementation.
struct Timed {
  Measured what;
  /// Median over the rounds.
  double seconds = 0;
  int rounds = 0;
};

/// Times all of `work`, one sample of each a round, so that whatever disturbs the machine disturbs all alike.
/// A sample is several launches in a row that rotate over the copies of the operands: on a GPU a recorded
/// graph, timed by events on the device; on a CPU at least a millisecond by the clock. Goes on for `seconds`,
/// though for at least 5 rounds and at most 50. Throws Error, or Interrupted.
std::vector<Timed> measure(const DeviceContext& device, std::vector<Measured> work, double seconds);

/// The upper one of two in the middle. `values` are brought into another order.
double median(std::vector<double>& values);

/// Bytes that copies of what a launch reads must exceed for it to come from memory: twice the GPU's L2, or
/// the CPU's last cache.
double cold_bytes(const DeviceContext& device);

/// How many copies of `bytes` that takes: 2 at least, and at most `limit`.
int64_t cold_copies(const DeviceContext& device, double bytes, int64_t limit = 4096);

}  // namespace atom::cli
