#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/measured.h"
#include "kernels/ops.h"
#include "tensor/device.h"

/// What benchmarks need of a GPU beside the ops. In builds without CUDA nothing here may be called.
namespace atom {

/// Random contents: plain bytes; e4m3 in [-1.875, 1.875]; floats in [-0.5, 0.5]; scales in [0.005, 0.015];
/// units of W4A16 weights (values and fp16 scales, kernels/cuda/baseline/w4a16/config.h).
enum class Noise : uint8_t { bytes, e4m3, f16, bf16, f32_scales, w4a16 };

void cuda_fill(const DeviceContext& device, void* data, size_t bytes, Noise noise, uint64_t seed);

size_t cuda_l2_bytes(const DeviceContext& device);

/// launch(0), ..., launch(launches - 1), one after the other, recorded as a CUDA graph. They have run once
/// before, so that a first run may allocate.
class CudaRecording {
 public:
  CudaRecording(const DeviceContext& device, const std::function<void(int64_t)>& launch, int64_t launches);
  ~CudaRecording();
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;

  /// Replays it; seconds on the GPU, by events, a launch.
  double seconds_per_launch();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Bytes a second of plain kernels that read, or read and write (both counted), far more than the L2 holds.
struct CudaBandwidth {
  double read = 0;
  double copy = 0;
};
CudaBandwidth cuda_measure_bandwidth(const DeviceContext& device);

/// Dense products of m tokens with weights [n, k], each with operands of its own that `memory` bounds:
/// cuBLASLt in bf16, FP8 and INT8 (with dequantization), and W4A16. `bytes` counts the weights.
std::vector<Measured> cuda_gemm_baselines(const DeviceContext& device, int64_t m, int64_t n, int64_t k);

/// The op, of a weight in the GPU's layout, with results of type `output` in op.y's memory, rows op.y.stride
/// elements apart: baselines write bf16, models float.
void cuda_linear_low_bit(const DeviceContext& device, const LinearLowBit& op, DType output);

/// The same products by cuBLASLt alone, large enough to reach the device's matrix rates: by rate, as
/// Measured::rate.
std::vector<Measured> cuda_rate_probes(const DeviceContext& device);

}  // namespace atom
