#pragma once

#include <algorithm>
#include <cstdint>

#include "base/thread_pool.h"
#include "tensor/device.h"

namespace atom {

inline int worker_count(const DeviceContext& device) {
  return device.pool == nullptr ? 1 : device.pool->size();
}

/// Calls body(begin, end, worker) over chunks of [0, count), on the device's threads where it has some.
template <class Body>
void for_chunks(const DeviceContext& device, int64_t count, int64_t grain, const Body& body) {
  if (device.pool != nullptr) {
    device.pool->parallel_for(count, grain, body);
    return;
  }
  for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count), 0);
}

}  // namespace atom
