#pragma once

#include <cstdint>
#include <functional>

#include "tensor/device.h"

namespace atom {

/// Calls body(i) for i in [0, count), shared among the device's threads in chunks of `grain`.
void parallel_rows(const DeviceContext& device, int64_t count, const std::function<void(int64_t)>& body,
                   int64_t grain = 8);

}  // namespace atom
