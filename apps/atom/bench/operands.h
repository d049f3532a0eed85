#pragma once

#include "kernels/random_operands.h"
#include "quant/recipe.h"

namespace atom::cli {

/// The outlier channels that `quantize` chooses for an input of k channels; none where it would choose them
/// all.
inline int64_t default_outliers(int64_t k) {
  return k <= 128 ? 0 : Recipe().outlier_count(k, "input");
}

}  // namespace atom::cli
