#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/quantized.h"
#include "tensor/device.h"

/// The GPU backend as the rest of the code sees it. In builds without CUDA (no_cuda.cpp) there is no GPU.
namespace atom {

/// An open GPU. `device` goes to DeviceContext::cuda, `memory` (the same object) to DeviceContext::memory.
struct CudaHandle {
  std::shared_ptr<cuda::Device> device;
  Memory* memory = nullptr;
  std::string description;  // "NVIDIA H200, 139.8 GiB, sm_90"
};

/// The first GPU that the kernels of this build run on; none without CUDA, without a driver or without such a
/// GPU.
std::optional<int> first_cuda_device();

/// Opens GPU `index`. Throws UsageError when this build has no CUDA support, or there is no such GPU, or it
/// is of an architecture that the build has no kernels for.
CudaHandle open_cuda(int index);

/// To be called on every thread but the one that opened the GPU, before it runs ops or moves memory there.
/// One thread at a time does so.
void cuda_use_on_this_thread(const DeviceContext& device);

/// Waits for the GPU's work; throws Error when any of it failed.
void cuda_synchronize(const DeviceContext& device);

/// Bytes of the GPU's memory that are free and that there are.
struct CudaMemoryInfo {
  size_t free = 0;
  size_t total = 0;
  /// The most that was in use when this process allocated, of all it is used for: CUDA's own share and other
  /// processes' included.
  size_t peak = 0;
};
CudaMemoryInfo cuda_memory_info(const DeviceContext& device);

/// Canonical weights in the GPU's memory, repacked to `weight_layout`.
PreparedWeight cuda_pack(const DeviceContext& device, PreparedWeight canonical, WeightLayout weight_layout);

/// A step's work, recorded once and replayed: the launches of `work` become a CUDA graph, one for each `key`.
/// What the work reads and writes must lie at the same addresses whenever the key is the same.
class CudaGraphs {
 public:
  CudaGraphs();
  ~CudaGraphs();
  CudaGraphs(const CudaGraphs&) = delete;
  CudaGraphs& operator=(const CudaGraphs&) = delete;

  /// The first time for a key `work` runs as it is (it may then still allocate); the second time it is
  /// recorded; from then on the recording is launched. `addresses` say where the work's memory lies: when
  /// they change, all recordings are dropped. Throws Error.
  void run(const DeviceContext& device, std::vector<int64_t> key, std::vector<int64_t> addresses,
           const std::function<void()>& work);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom
