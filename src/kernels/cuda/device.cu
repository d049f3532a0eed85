#include <algorithm>

#include "kernels/cuda.h"
#include "kernels/cuda/attention/config.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/runtime.h"

namespace atom {
namespace cuda {
namespace {

/// What the kernels of this build need: instructions of exactly this architecture.
constexpr int kMajor = 9;
constexpr int kMinor = 0;
/// Scratch memory at first: what decode steps ask for, so that it rarely moves.
constexpr size_t kFirstScratch = size_t{64} << 20;
constexpr size_t kCublasWorkspace = size_t{32} << 20;

bool runs_kernels(const cudaDeviceProp& properties) {
  return properties.major == kMajor && properties.minor == kMinor;
}

}  // namespace

Device::Device(int index) : index_(index) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  if (index < 0 || index >= count) {
    throw UsageError(
        fmt::format("--device cuda:{}: this machine has {} GPU{}", index, count, count == 1 ? "" : "s"));
  }
  cudaDeviceProp properties;
  ATOM_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  if (!runs_kernels(properties)) {
    throw UsageError(
        fmt::format("--device cuda:{}: {} is of architecture sm_{}{}; this build has kernels for sm_{}{}",
                    index, properties.name, properties.major, properties.minor, kMajor, kMinor));
  }
  ATOM_CUDA_CHECK(cudaSetDevice(index));
  sm_count_ = properties.multiProcessorCount;
  description_ = fmt::format("{}, {:.1f} GiB, sm_{}{}", properties.name,
                             static_cast<double>(properties.totalGlobalMem) / (1 << 30), properties.major,
                             properties.minor);
  ATOM_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  constexpr size_t kPartsBytes = kAttentionParts * kAttentionPartFloats * sizeof(float);
  parts_ = static_cast<float*>(allocate(kPartsBytes));
  ATOM_CUDA_CHECK(cudaMemsetAsync(parts_, 0xFF, kPartsBytes, stream_));
}

Device::~Device() {
  cudaStreamSynchronize(stream_);
  cublas_lt_.reset();
  if (cublas_ != nullptr) cublasDestroy(cublas_);
  if (cusolver_ != nullptr) cusolverDnDestroy(cusolver_);
  cudaFree(cublas_workspace_);
  cudaFree(scratch_);
  cudaFree(parts_);
  cudaStreamDestroy(stream_);
}

void Device::use_on_this_thread() {
  ATOM_CUDA_CHECK(cudaSetDevice(index_));
}

void* Device::allocate(size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  size_t free = 0, total = 0;
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    ATOM_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    throw OutOfDeviceMemory(fmt::format(
        "cuda:{} is out of memory: {} more bytes asked for, {} of {} are free", index_, bytes, free, total));
  }
  check(status, "cudaMalloc");
  ATOM_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  peak_memory_ = std::max(peak_memory_, total - free);
  ATOM_CUDA_CHECK(cudaMemsetAsync(data, 0, bytes, stream_));
  return data;
}

void Device::release(void* data) noexcept {
  cudaFree(data);
}

void Device::upload(void* to, const void* from, size_t bytes) {
  // From pageable memory the call returns once the bytes have been taken over.
  ATOM_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_));
}

void Device::download(void* to, const void* from, size_t bytes) {
  ATOM_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
  synchronize();
}

void Device::copy(void* to, const void* from, size_t bytes) {
  ATOM_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void Device::synchronize() {
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void* Device::scratch(size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_;
  synchronize();
  ATOM_CUDA_CHECK(cudaFree(scratch_));
  scratch_ = nullptr;
  scratch_bytes_ = 0;
  // Before anything can fail: what was recorded with the old memory must not run again.
  ++scratch_generation_;
  const size_t size = std::max(bytes, kFirstScratch);
  scratch_ = allocate(size);
  scratch_bytes_ = size;
  return scratch_;
}

cublasHandle_t Device::cublas() {
  if (cublas_ != nullptr) return cublas_;
  ATOM_LIBRARY_CHECK(cublasCreate(&cublas_));
  ATOM_LIBRARY_CHECK(cublasSetStream(cublas_, stream_));
  // A workspace of our own: recorded launches must not allocate.
  cublas_workspace_ = allocate(kCublasWorkspace);
  ATOM_LIBRARY_CHECK(cublasSetWorkspace(cublas_, cublas_workspace_, kCublasWorkspace));
  ATOM_LIBRARY_CHECK(cublasSetMathMode(cublas_, CUBLAS_PEDANTIC_MATH));
  return cublas_;
}

cusolverDnHandle_t Device::cusolver() {
  if (cusolver_ != nullptr) return cusolver_;
  ATOM_LIBRARY_CHECK(cusolverDnCreate(&cusolver_));
  ATOM_LIBRARY_CHECK(cusolverDnSetStream(cusolver_, stream_));
  return cusolver_;
}

baseline::CublasLt& Device::cublas_lt() {
  if (cublas_lt_ == nullptr) cublas_lt_ = std::make_unique<baseline::CublasLt>();
  return *cublas_lt_;
}

}  // namespace cuda

std::optional<int> first_cuda_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return std::nullopt;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) == cudaSuccess && cuda::runs_kernels(properties)) return i;
  }
  return std::nullopt;
}

CudaHandle open_cuda(int index) {
  auto device = std::make_shared<cuda::Device>(index);
  return {device, device.get(), device->description()};
}

void cuda_use_on_this_thread(const DeviceContext& device) {
  if (device.cuda != nullptr) cuda::of(device).use_on_this_thread();
}

void cuda_synchronize(const DeviceContext& device) {
  cuda::of(device).synchronize();
}

CudaMemoryInfo cuda_memory_info(const DeviceContext& device) {
  CudaMemoryInfo info;
  ATOM_CUDA_CHECK(cudaMemGetInfo(&info.free, &info.total));
  info.peak = cuda::of(device).peak_memory();
  return info;
}

}  // namespace atom
