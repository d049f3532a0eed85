#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda_bench.h"

namespace atom {

struct CudaRecording::Impl {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaGraphExec_t graph = nullptr;
  int64_t launches = 0;

  ~Impl() {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    if (begin != nullptr) cudaEventDestroy(begin);
    if (end != nullptr) cudaEventDestroy(end);
  }
};

CudaRecording::CudaRecording(const DeviceContext& device, const std::function<void(int64_t)>& launch,
                             int64_t launches)
    : impl_(std::make_unique<Impl>()) {
  impl_->stream = cuda::of(device).stream();
  impl_->launches = launches;
  ATOM_CUDA_CHECK(cudaEventCreate(&impl_->begin));
  ATOM_CUDA_CHECK(cudaEventCreate(&impl_->end));
  launch(0);
  cuda::of(device).synchronize();
  ATOM_CUDA_CHECK(cudaStreamBeginCapture(impl_->stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    for (int64_t i = 0; i < launches; ++i) launch(i);
  } catch (...) {
    cudaStreamEndCapture(impl_->stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  ATOM_CUDA_CHECK(cudaStreamEndCapture(impl_->stream, &graph));
  const cudaError_t status = cudaGraphInstantiate(&impl_->graph, graph, 0);
  cudaGraphDestroy(graph);
  cuda::check(status, "cudaGraphInstantiate");
}

CudaRecording::~CudaRecording() = default;

double CudaRecording::seconds_per_launch() {
  ATOM_CUDA_CHECK(cudaEventRecord(impl_->begin, impl_->stream));
  ATOM_CUDA_CHECK(cudaGraphLaunch(impl_->graph, impl_->stream));
  ATOM_CUDA_CHECK(cudaEventRecord(impl_->end, impl_->stream));
  ATOM_CUDA_CHECK(cudaEventSynchronize(impl_->end));
  float milliseconds = 0;
  ATOM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, impl_->begin, impl_->end));
  return static_cast<double>(milliseconds) * 1e-3 / static_cast<double>(impl_->launches);
}

size_t cuda_l2_bytes(const DeviceContext&) {
  int index = 0, bytes = 0;
  ATOM_CUDA_CHECK(cudaGetDevice(&index));
  ATOM_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, index));
  return static_cast<size_t>(bytes);
}

}  // namespace atom
