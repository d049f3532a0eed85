#pragma once

#include "base/random.h"
#include "kernels/ops.h"

/// Random operands of the ops, made on the device by RandomFill.
namespace atom::cli {

template <class T>
Buffer<T> random_buffer(const DeviceContext& device, int64_t count, DType dtype, float scale = 1.0f,
                        float offset = 0.0f, uint64_t seed = 1) {
  Buffer<T> out(static_cast<size_t>(count), device.memory);
  run(device, RandomFill{out.data(), count, dtype, scale, offset, seed});
  return out;
}

inline std::vector<int32_t> random_permutation(int64_t n, uint64_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  Random random(seed);
  for (size_t i = 0; i < order.size(); ++i) {
    const auto j = static_cast<size_t>(random.below(i + 1));
    order[i] = order[j];
    order[j] = static_cast<int32_t>(i);
  }
  return order;
}

/// The outlier channels that `quantize` chooses for an input of k channels: the number nearest to 128 that
/// leaves whole groups of 128.
inline int64_t default_outliers(int64_t k) {
  const int64_t rest = k % 128;
  if (k <= 128) return 0;
  return rest == 0 ? 128 : rest >= 64 ? rest : rest + 128 <= k ? rest + 128 : rest;
}

}  // namespace atom::cli
