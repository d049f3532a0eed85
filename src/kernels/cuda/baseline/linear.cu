#include <algorithm>

#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/baseline/linear.h"
#include "kernels/cuda/baseline/w4a16/w4a16.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fused/fused.h"
#include "kernels/cuda/linear_float/linear_float.h"
#include "kernels/cuda/runtime.h"
#include "tensor/half.h"

namespace atom::cuda::baseline {
namespace {

/// What INT8 sums and dequantized weights take at most.
constexpr int64_t kSlabBytes = int64_t{256} << 20;
constexpr int64_t kMaxSlabTokens = 65535;  // that dequantize_sums takes
constexpr int kThreads = 256;

size_t bytes(int64_t count) {
  return static_cast<size_t>(count);
}

int64_t padded_rows(int64_t n) {
  return (n + 15) / 16 * 16;
}

/// Bytes of scratch that `x` converted to 16-bit floats takes, a multiple of what kernels ask of alignment.
int64_t converted_bytes(const FloatInput& x, DType to) {
  return x.dtype == to ? 0 : (x.rows * x.cols * 2 + 255) / 256 * 256;
}

/// x in `to`, converted into `scratch` where it is f32.
const void* as_half(const FloatInput& x, DType to, void* scratch, cudaStream_t stream) {
  if (x.dtype == to) return x.data;
  convert({x.data, DType::f32, scratch, to, x.rows * x.cols}, stream);
  return scratch;
}

bool is_dense(const FloatInput& x, DType type) {
  return (x.dtype == DType::f32 || x.dtype == type) && x.stride == x.cols && x.cols % 8 == 0;
}

/// out[row, channel] = fp16(q * scale) of rows [first, first + gridDim.x) of a canonical weight; a block a
/// row.
__global__ void __launch_bounds__(kThreads)
    dequantize_rows_kernel(const LowBitWeight w, int64_t first, uint16_t* out) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t row = first + blockIdx.x, k = w.layout.k, groups = w.layout.groups();
  const uint8_t* values = w.values + row * ((k + 1) / 2);
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    const int q = (values[i / 2] >> (i % 2 * 4) & 15 ^ 8) - 8;
    const float scale = half_to_float(w.scales[row * groups + i / w.layout.group]);
    out[blockIdx.x * k + i] = float_to_half(static_cast<float>(q) * scale);
  }
}

/// What `canonical` becomes in another layout, but for its values.
PreparedWeight without_values(const PreparedWeight& canonical, WeightLayout weight_layout) {
  PreparedWeight out;
  out.n = canonical.n;
  out.layout = canonical.layout;
  out.activation_bits = canonical.activation_bits;
  out.weight_layout = weight_layout;
  return out;
}

}  // namespace

bool supports_float(const DeviceContext& device, const LinearFloat& op) {
  const bool half = op.dtype == DType::f16 || op.dtype == DType::bf16;
  return !device.exact && half && is_dense(op.x, op.dtype);
}

void linear_float(const DeviceContext& device, const LinearFloat& op) {
  Device& gpu = of(device);
  void* scratch = gpu.scratch(bytes(converted_bytes(op.x, op.dtype)));
  MatmulArgs args;
  args.type = op.dtype == DType::f16 ? OperandType::f16 : OperandType::bf16;
  args.result = ResultType::f32;
  args.m = op.x.rows;
  args.n = op.y.cols;
  args.k = op.x.cols;
  args.x = as_half(op.x, op.dtype, scratch, gpu.stream());
  args.w = op.w;
  args.y = op.y.data;
  args.y_stride = op.y.stride;
  args.accumulate = op.accumulate;
  gpu.cublas_lt().matmul(args, gpu.stream());
}

bool supports_dense8(const DeviceContext&, const LinearLowBit& op) {
  return op.w->weight_layout == WeightLayout::dense8_sm90;
}

void linear_dense8(const DeviceContext& device, const LinearLowBit& op) {
  Device& gpu = of(device);
  const PreparedWeight& w = *op.w;
  const int64_t rows = padded_rows(w.n);
  const auto* w_scale = reinterpret_cast<const float*>(w.values.data() + rows * w.layout.k);
  MatmulArgs args;
  args.m = op.x->tokens();
  args.k = w.layout.k;
  args.w = w.values.data();
  args.x_stride = op.x->stride();
  if (w.layout.outlier_type == OutlierType::fp8) {
    // One scale for all tokens, and one for all rows: scales of their own cost cuBLASLt half its speed.
    args.type = OperandType::e4m3;
    args.result = ResultType::f32;
    args.n = w.n;
    args.x = op.x->values();
    args.y = op.y.data;
    args.y_stride = op.y.stride;
    args.accumulate = op.accumulate;
    args.x_scale = op.x->scales();
    args.w_scale = w_scale;
    args.fast_sums = true;
    return gpu.cublas_lt().matmul(args, gpu.stream());
  }
  args.type = OperandType::s8;
  args.result = ResultType::s32;
  args.n = rows;
  const int64_t slab =
      std::clamp<int64_t>(kSlabBytes / (4 * rows), 1, std::clamp<int64_t>(args.m, 1, kMaxSlabTokens));
  auto* sums = static_cast<int32_t*>(gpu.scratch(bytes(slab * rows * 4)));
  args.y = sums;
  for (int64_t first = 0; first < op.x->tokens(); first += slab) {
    args.m = std::min(slab, op.x->tokens() - first);
    args.x = op.x->values() + first * op.x->stride();
    gpu.cublas_lt().matmul(args, gpu.stream());
    DequantizeSumsArgs scaled;
    scaled.m = args.m;
    scaled.n = w.n;
    scaled.sums = sums;
    scaled.sums_stride = rows;
    scaled.x_scale = op.x->scales() + first;
    scaled.w_scale = w_scale;
    scaled.y = op.y.data + first * op.y.stride;
    scaled.y_stride = op.y.stride;
    scaled.accumulate = op.accumulate;
    dequantize_sums(scaled, gpu.stream());
  }
}

PreparedWeight pack_dense8(const DeviceContext& device, const PreparedWeight& canonical) {
  PreparedWeight out = without_values(canonical, WeightLayout::dense8_sm90);
  const int64_t k = out.layout.k, rows = padded_rows(out.n);
  out.values = Buffer<uint8_t>(bytes(rows * k + rows * 4), device.memory);
  const cudaStream_t stream = of(device).stream();
  ATOM_CUDA_CHECK(cudaMemcpyAsync(out.values.data(), canonical.outliers.data(), bytes(out.n * k),
                                  cudaMemcpyDeviceToDevice, stream));
  convert({canonical.outlier_scales.data(), DType::f16, out.values.data() + rows * k, DType::f32, out.n},
          stream);
  return out;
}

bool supports_w4a16(const DeviceContext&, const LinearWeightOnly& op) {
  return op.w->weight_layout == WeightLayout::w4a16_sm90 && is_dense(op.x, DType::f16);
}

void linear_w4a16(const DeviceContext& device, const LinearWeightOnly& op) {
  Device& gpu = of(device);
  W4A16Args args;
  args.m = op.x.rows;
  args.n = op.w->n;
  args.k = op.x.cols;
  args.w = op.w->values.data();
  args.result = ResultType::f32;
  args.y = op.y.data;
  args.y_stride = op.y.stride;
  args.accumulate = op.accumulate;
  const int64_t x_bytes = converted_bytes(op.x, DType::f16);
  auto* scratch = static_cast<uint8_t*>(gpu.scratch(bytes(x_bytes) + w4a16_scratch_bytes(args)));
  args.x = as_half(op.x, DType::f16, scratch, gpu.stream());
  w4a16_matmul(args, gpu.cublas_lt(), scratch + x_bytes, gpu.stream());
}

PreparedWeight pack_w4a16(const DeviceContext& device, const PreparedWeight& canonical) {
  PreparedWeight out = without_values(canonical, WeightLayout::w4a16_sm90);
  out.values = Buffer<uint8_t>(w4a16_packed_bytes(out.n, out.layout.k), device.memory);
  w4a16_pack(canonical.values.data(), canonical.scales.data(), out.n, out.layout.k, out.values.data(),
             of(device).stream());
  return out;
}

void linear_weight_only_exact(const DeviceContext& device, const LinearWeightOnly& op) {
  Device& gpu = of(device);
  const LowBitWeight w = op.w->view();
  const int64_t slab = std::clamp<int64_t>(kSlabBytes / (2 * w.layout.k), 1, std::max<int64_t>(w.n, 1));
  auto* half = static_cast<uint16_t*>(gpu.scratch(bytes(slab * w.layout.k * 2)));
  for (int64_t first = 0; first < w.n; first += slab) {
    const int64_t rows = std::min(slab, w.n - first);
    launch(dequantize_rows_kernel, dim3(static_cast<unsigned>(rows)), kThreads, 0, gpu.stream(), {}, w, first,
           half);
    linear_float_exact({op.x, DType::f16, half, op.y.col_range(first, first + rows), op.accumulate},
                       gpu.stream());
  }
}

}  // namespace atom::cuda::baseline
