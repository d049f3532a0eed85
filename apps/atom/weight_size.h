#pragma once

#include <cstdint>

#include "checkpoint/checkpoint.h"
#include "model/model.h"

namespace atom::cli {

/// How much room a checkpoint's weights take.
struct WeightSize {
  int64_t weights = 0;
  /// All tensors as stored, and the file (or files) that they are in.
  int64_t tensor_bytes = 0;
  int64_t file_bytes = 0;

  double bits_per_weight() const;
};

WeightSize weight_size(const Checkpoint& checkpoint, const Model& model);

}  // namespace atom::cli
