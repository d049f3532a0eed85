#pragma once

#include <cstdint>

#include "model/config.h"
#include "tensor/memory.h"
#include "tensor/tensor.h"

namespace atom {

/// cos and sin of positions [0, positions), [positions, head_dim / 2], times the attention factor of the
/// configuration's RoPE scaling.
struct RopeTable {
  Buffer<float> cos;
  Buffer<float> sin;
  int64_t positions = 0;

  /// Makes the table at least `needed` positions long, of at most config.max_positions, in `memory`.
  void grow(int64_t needed, const ModelConfig& config, Memory* memory = nullptr);
};

}  // namespace atom
