#include "limits.h"

#include <cstring>

#include "kernels/cuda_bench.h"
#include "kernels/ops.h"

namespace atom::cli {
namespace {

/// What each side of the copy has on a CPU.
constexpr size_t kWords = size_t{1} << 24;
constexpr int64_t kChunk = int64_t{1} << 16;
constexpr int64_t kSize = 1024;
constexpr double kSeconds = 0.2;

Limits gpu_limits(const DeviceContext& device) {
  const CudaBandwidth bandwidth = cuda_measure_bandwidth(device);
  Limits limits{bandwidth.read, bandwidth.copy, {}};
  for (const Timed& timed : measure(device, cuda_rate_probes(device), kSeconds)) {
    limits.rates[timed.what.rate] = timed.what.operations / timed.seconds;
  }
  return limits;
}

Limits cpu_limits(const DeviceContext& device) {
  Buffer<uint64_t> from(kWords), to(kWords);
  std::vector<uint64_t> sums(static_cast<size_t>(device.pool->size()));
  Measured read, copy;
  read.launch = [&](int64_t) {
    device.pool->parallel_for(static_cast<int64_t>(kWords), kChunk,
                              [&](int64_t begin, int64_t end, int worker) {
                                uint64_t sum = 0;
                                for (int64_t i = begin; i < end; ++i) sum += from[static_cast<size_t>(i)];
                                sums[static_cast<size_t>(worker)] += sum;
                              });
  };
  copy.launch = [&](int64_t) {
    device.pool->parallel_for(static_cast<int64_t>(kWords), kChunk, [&](int64_t begin, int64_t end, int) {
      std::memcpy(to.data() + begin, from.data() + begin,
                  static_cast<size_t>(end - begin) * sizeof(uint64_t));
    });
  };
  Matrix<float> x(kSize, kSize), w(kSize, kSize), y(kSize, kSize);
  for (Matrix<float>* m : {&x, &w})
    run(device, RandomFill{m->data(), kSize * kSize, DType::f32, 1.0f, 0.0f, 1});
  Measured product;
  product.launch = [&](int64_t) {
    run(device, LinearFloat{std::as_const(x).view(), DType::f32, w.data(), y.view()});
  };
  const auto timed = measure(device, {read, copy, product}, kSeconds);
  const double bytes = kWords * sizeof(uint64_t);
  return {bytes / timed[0].seconds,
          2 * bytes / timed[1].seconds,
          {{"f32", 2.0 * kSize * kSize * kSize / timed[2].seconds}}};
}

}  // namespace

Limits measure_limits(const DeviceContext& device) {
  return device.cuda != nullptr ? gpu_limits(device) : cpu_limits(device);
}

}  // namespace atom::cli
