#pragma once

#include <cstdint>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>
#include <memory>
#include <string>

#include "kernels/cuda/baseline/cublas_lt.h"
#include "tensor/device.h"

namespace atom::cuda {

/// An open GPU: one stream, in which all ops run in order, memory, scratch memory and library handles. Used
/// by one thread at a time.
class Device final : public Memory {
 public:
  /// Throws UsageError when there is no such GPU or none of the kernels runs on it.
  explicit Device(int index);
  ~Device() override;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  void* allocate(size_t bytes) override;
  void release(void* data) noexcept override;
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;

  cudaStream_t stream() const { return stream_; }
  int sm_count() const { return sm_count_; }
  /// The most of the GPU's memory that was in use, by whomever, when some was allocated here.
  size_t peak_memory() const { return peak_memory_; }
  const std::string& description() const { return description_; }
  /// CUDA knows a current GPU for each thread.
  void use_on_this_thread();
  /// Waits for the stream. Throws Error when any of its work failed.
  void synchronize();

  /// At least `bytes` for the kernels of one op, valid until the next call: ops run in order, so they share
  /// it. Growing moves it.
  void* scratch(size_t bytes);
  size_t scratch_bytes() const { return scratch_bytes_; }
  /// kAttentionParts * kAttentionPartFloats floats with all bits set whenever no kernel runs: blocks of one
  /// launch leave each other values there, and whoever takes them restores the bits. They never move.
  float* parts() const { return parts_; }
  /// Changes whenever scratch memory moves: recorded launches then refer to memory that is gone.
  int64_t scratch_generation() const { return scratch_generation_; }

  /// FP32 products in FP32, on this stream. Opened at first use, as the next one.
  cublasHandle_t cublas();
  cusolverDnHandle_t cusolver();
  /// Products of FP16, BF16, FP8 and INT8.
  baseline::CublasLt& cublas_lt();

 private:
  int index_;
  int sm_count_ = 0;
  std::string description_;
  cudaStream_t stream_ = nullptr;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  int64_t scratch_generation_ = 0;
  float* parts_ = nullptr;
  void* cublas_workspace_ = nullptr;
  cublasHandle_t cublas_ = nullptr;
  cusolverDnHandle_t cusolver_ = nullptr;
  std::unique_ptr<baseline::CublasLt> cublas_lt_;
  size_t peak_memory_ = 0;
};

/// The GPU of a context that has one.
inline Device& of(const DeviceContext& context) {
  return *context.cuda;
}

}  // namespace atom::cuda
