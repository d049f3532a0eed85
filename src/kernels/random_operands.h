#pragma once

#include <cassert>

#include "base/random.h"
#include "kernels/ops.h"

/// Random operands of the ops, made where they lie by RandomFill: for models and benchmarks that need no real
/// ones.
namespace atom {

template <class T>
Buffer<T> random_buffer(const DeviceContext& device, int64_t count, DType dtype, float scale = 1.0f,
                        float offset = 0.0f, uint64_t seed = 1, float quantum = 0.0f) {
  assert(sizeof(T) == size_of(dtype));
  Buffer<T> out(static_cast<size_t>(count), device.memory);
  run(device, RandomFill{out.data(), count, dtype, scale, offset, seed, quantum});
  return out;
}

/// A canonical weight [n, layout.k] in the device's memory, of about the magnitudes that trained models have.
PreparedWeight random_weight(const DeviceContext& device, int64_t n, const ChannelLayout& layout,
                             int activation_bits, uint64_t seed);

/// Fills a cache of f16, int8 or int4. Counts `seed` on.
void random_fill_cache(const DeviceContext& device, const KvLayerView& cache, uint64_t& seed);

}  // namespace atom
