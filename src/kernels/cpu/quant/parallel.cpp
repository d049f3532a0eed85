#include "kernels/cpu/quant/parallel.h"

namespace atom {

void parallel_rows(const DeviceContext& device, int64_t count, const std::function<void(int64_t)>& body,
                   int64_t grain) {
  const auto chunk = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) body(i);
  };
  if (device.pool != nullptr) {
    device.pool->parallel_for(count, grain, chunk);
  } else {
    chunk(0, count, 0);
  }
}

}  // namespace atom
