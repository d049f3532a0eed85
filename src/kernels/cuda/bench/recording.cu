#include "kernels/cuda/device.h"
#include "kernels/cuda/record.h"
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
  impl_->graph = cuda::record(impl_->stream, [&] {
    for (int64_t i = 0; i < launches; ++i) launch(i);
  });
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
