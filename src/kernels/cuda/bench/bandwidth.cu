// The machine's memory bandwidth, as plain kernels reach it: one reads 1 GiB, one copies 1 GiB to another
// place. 16 bytes a thread and load, 8 loads in flight a thread, a grid that fills the chip once.

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda_bench.h"
#include "tensor/tensor.h"

namespace atom {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 8;
constexpr size_t kBytes = size_t{1} << 30;
constexpr int kRounds = 9;

/// `count` is a multiple of kThreads * kLoads.
template <bool kCopy>
__global__ void __launch_bounds__(kThreads) stream_through(const uint4* from, uint4* to, size_t count) {
  uint32_t mixed = 0;
  const size_t step = size_t{gridDim.x} * kThreads * kLoads;
  for (size_t base = size_t{blockIdx.x} * kThreads * kLoads; base < count; base += step) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) v[i] = __ldcs(from + base + i * kThreads + threadIdx.x);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if constexpr (kCopy) {
        __stcs(to + base + i * kThreads + threadIdx.x, v[i]);
      } else {
        mixed |= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
      }
    }
  }
  // Does not happen with noise; it keeps the loads alive.
  if (!kCopy && mixed == 0x12345678u) to[0] = {};
}

}  // namespace

CudaBandwidth cuda_measure_bandwidth(const DeviceContext& device) {
  const Buffer<uint8_t> from(kBytes, device.memory);
  Buffer<uint8_t> to(kBytes, device.memory);
  cuda_fill(device, const_cast<uint8_t*>(from.data()), kBytes, Noise::bytes, 1);
  const auto* in = reinterpret_cast<const uint4*>(from.data());
  auto* out = reinterpret_cast<uint4*>(to.data());
  cuda::Device& gpu = cuda::of(device);
  const auto best = [&](auto kernel, int blocks_per_sm) {
    CudaRecording recording(
        device,
        [&](int64_t) {
          kernel<<<gpu.sm_count() * blocks_per_sm, kThreads, 0, gpu.stream()>>>(in, out,
                                                                                kBytes / sizeof(uint4));
          ATOM_CUDA_CHECK(cudaGetLastError());
        },
        3);
    std::array<double, kRounds> seconds;
    for (double& s : seconds) s = recording.seconds_per_launch();
    std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
    return static_cast<double>(kBytes) / seconds[kRounds / 2];
  };
  CudaBandwidth bandwidth;
  for (const int blocks : {2, 4, 8}) {
    bandwidth.read = std::max(bandwidth.read, best(stream_through<false>, blocks));
    bandwidth.copy = std::max(bandwidth.copy, 2 * best(stream_through<true>, blocks));
  }
  return bandwidth;
}

}  // namespace atom
