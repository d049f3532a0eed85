#include <map>

#include "kernels/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/record.h"
#include "kernels/cuda/runtime.h"

namespace atom {

cudaGraphExec_t cuda::record(cudaStream_t stream, const std::function<void()>& work) {
  cudaGraph_t graph = nullptr;
  ATOM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  ATOM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  return executable;
}

namespace {

struct Recording {
  /// Null after the first run, which only brings memory to its final size.
  cudaGraphExec_t graph = nullptr;
};

}  // namespace

struct CudaGraphs::Impl {
  std::map<std::vector<int64_t>, Recording> recordings;
  std::vector<int64_t> addresses;

  ~Impl() { clear(); }
  void clear() {
    for (auto& [key, recording] : recordings) {
      if (recording.graph != nullptr) cudaGraphExecDestroy(recording.graph);
    }
    recordings.clear();
  }
};

CudaGraphs::CudaGraphs() : impl_(std::make_unique<Impl>()) {}
CudaGraphs::~CudaGraphs() = default;

void CudaGraphs::run(const DeviceContext& device, std::vector<int64_t> key, std::vector<int64_t> addresses,
                     const std::function<void()>& work) {
  cuda::Device& gpu = cuda::of(device);
  addresses.push_back(gpu.scratch_generation());
  if (impl_->addresses != addresses) {
    impl_->clear();
    impl_->addresses = std::move(addresses);
  }
  const auto [found, first] = impl_->recordings.try_emplace(std::move(key));
  Recording& recording = found->second;
  if (first) {
    try {
      work();
    } catch (...) {
      // Memory may not have its final size: the next run is the first again.
      impl_->recordings.erase(found);
      throw;
    }
    return;
  }
  if (recording.graph == nullptr) recording.graph = cuda::record(gpu.stream(), work);
  ATOM_CUDA_CHECK(cudaGraphLaunch(recording.graph, gpu.stream()));
}

}  // namespace atom
