#include <cassert>

#include "kernels/cuda_bench.h"

// Benchmarks of builds without CUDA never ask for any of this. Left out of the others
// (cmake/AtomModule.cmake).

namespace atom {

void cuda_fill(const DeviceContext&, void*, size_t, Noise, uint64_t) {
  assert(false);
}

size_t cuda_l2_bytes(const DeviceContext&) {
  return 0;
}

struct CudaRecording::Impl {};
CudaRecording::CudaRecording(const DeviceContext&, const std::function<void(int64_t)>&, int64_t) {
  assert(false);
}
CudaRecording::~CudaRecording() = default;
double CudaRecording::seconds_per_launch() {
  return 0;
}

CudaBandwidth cuda_measure_bandwidth(const DeviceContext&) {
  return {};
}

std::vector<Measured> cuda_gemm_baselines(const DeviceContext&, int64_t, int64_t, int64_t) {
  return {};
}

void cuda_linear_low_bit(const DeviceContext&, const LinearLowBit&, DType) {
  assert(false);
}

std::vector<Measured> cuda_rate_probes(const DeviceContext&) {
  return {};
}

}  // namespace atom
