#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/device.h"

namespace atom {

/// Elements of activations that one thread should get at least: waking the pool costs some microseconds,
/// which is what this many elements take in the fused kernels.
inline constexpr int64_t kFusedElementsPerTask = 16 * 1024;

/// Calls body(begin, end) over disjoint ranges that cover [0, tokens), on the pool when there is enough work,
/// on this thread alone otherwise.
template <class Body>
void for_each_token_range(const DeviceContext& device, int64_t tokens, int64_t elements_per_token,
                          const Body& body) {
  const int64_t per_task =
      std::max<int64_t>(1, kFusedElementsPerTask / std::max<int64_t>(1, elements_per_token));
  if (device.pool == nullptr || device.pool->size() == 1 || tokens <= per_task) {
    if (tokens > 0) body(int64_t{0}, tokens);
    return;
  }
  device.pool->parallel_for(tokens, per_task, [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

}  // namespace atom
