#include <algorithm>
#include <memory>

#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/baseline/w4a16/config.h"
#include "kernels/cuda/baseline/w4a16/w4a16.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda_bench.h"
#include "tensor/tensor.h"

namespace atom {
namespace {

using cuda::baseline::CublasLt;
using cuda::baseline::MatmulArgs;
using cuda::baseline::OperandType;
using cuda::baseline::ResultType;

/// Operands of a product; launches keep them alive.
struct Operands {
  Buffer<uint8_t> x, w, y, sums, scratch;
  Buffer<float> x_scales, w_scales;
  size_t weight_bytes;
  int64_t copies;
  std::shared_ptr<CublasLt> lt;

  Operands(const DeviceContext& device, int64_t m, int64_t n, size_t x_bytes, size_t w_bytes, size_t y_bytes)
      : x(x_bytes, device.memory), y(y_bytes, device.memory), weight_bytes(w_bytes) {
    copies = std::max<int64_t>(2, static_cast<int64_t>(2 * cuda_l2_bytes(device) / w_bytes) + 1);
    w = Buffer<uint8_t>(w_bytes * static_cast<size_t>(copies), device.memory);
    x_scales = Buffer<float>(static_cast<size_t>(m), device.memory);
    w_scales = Buffer<float>(static_cast<size_t>(n), device.memory);
    cuda_fill(device, x_scales.data(), x_scales.size() * 4, Noise::f32_scales, 3);
    cuda_fill(device, w_scales.data(), w_scales.size() * 4, Noise::f32_scales, 4);
  }
  const uint8_t* weights(int64_t copy) const {
    return w.data() + weight_bytes * static_cast<size_t>(copy % copies);
  }
};

struct Kind {
  const char* name;
  const char* rate;
  OperandType type;
  ResultType result;
  Noise noise;
  int64_t bytes;
};

constexpr Kind kBf16{"BF16", "bf16", OperandType::bf16, ResultType::bf16, Noise::bf16, 2};
constexpr Kind kFp8{"FP8", "fp8", OperandType::e4m3, ResultType::bf16, Noise::e4m3, 1};
constexpr Kind kInt8{"INT8", "int8", OperandType::s8, ResultType::s32, Noise::bytes, 1};

/// INT8 sums are dequantized to bf16 where `dequantize`: W8A8 as a model uses it.
Measured dense(const DeviceContext& device, const std::shared_ptr<CublasLt>& lt, const Kind& kind, int64_t m,
               int64_t n, int64_t k, bool dequantize) {
  const auto size = [](int64_t count) { return static_cast<size_t>(count); };
  const auto o = std::make_shared<Operands>(device, m, n, size(m * k * kind.bytes), size(n * k * kind.bytes),
                                            size(m * n * 4));
  o->lt = lt;
  if (dequantize) o->sums = Buffer<uint8_t>(size(m * n * 4), device.memory);
  cuda_fill(device, o->x.data(), o->x.size(), kind.noise, 1);
  cuda_fill(device, o->w.data(), o->w.size(), kind.noise, 2);
  const cudaStream_t stream = cuda::of(device).stream();
  const auto launch = [=](int64_t copy) {
    MatmulArgs args;
    args.type = kind.type;
    args.result = kind.result;
    args.m = m;
    args.n = n;
    args.k = k;
    args.fast_sums = kind.type == OperandType::e4m3;
    args.x = o->x.data();
    args.w = o->weights(copy);
    args.y = dequantize ? o->sums.data() : o->y.data();
    o->lt->matmul(args, stream);
    if (!dequantize) return;
    cuda::baseline::DequantizeSumsArgs sums;
    sums.m = m;
    sums.n = n;
    sums.sums = reinterpret_cast<const int32_t*>(o->sums.data());
    sums.x_scale = o->x_scales.data();
    sums.w_scale = o->w_scales.data();
    sums.result = ResultType::bf16;
    sums.y = o->y.data();
    cuda::baseline::dequantize_sums(sums, stream);
  };
  Measured measured;
  measured.name = kind.name;
  measured.implementation = dequantize ? "cublaslt, dequantize" : "cublaslt";
  measured.rate = kind.rate;
  measured.bytes = static_cast<double>(o->weight_bytes);
  measured.operations = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  measured.copies = o->copies;
  measured.launch = launch;
  return measured;
}

Measured w4a16(const DeviceContext& device, const std::shared_ptr<CublasLt>& lt, int64_t m, int64_t n,
               int64_t k) {
  const auto o =
      std::make_shared<Operands>(device, m, n, static_cast<size_t>(m * k * 2),
                                 cuda::baseline::w4a16_packed_bytes(n, k), static_cast<size_t>(m * n * 2));
  o->lt = lt;
  cuda_fill(device, o->x.data(), o->x.size(), Noise::f16, 1);
  cuda_fill(device, o->w.data(), o->w.size(), Noise::w4a16, 2);
  cuda::baseline::W4A16Args args;
  args.m = m;
  args.n = n;
  args.k = k;
  args.x = o->x.data();
  args.y = o->y.data();
  o->scratch = Buffer<uint8_t>(cuda::baseline::w4a16_scratch_bytes(args), device.memory);
  const cudaStream_t stream = cuda::of(device).stream();
  Measured measured;
  measured.name = "W4A16";
  measured.implementation = m <= cuda::baseline::w4a16::kMaxTokens ? "mma" : "dequantize, cublaslt";
  measured.rate = "bf16";
  measured.bytes = static_cast<double>(o->weight_bytes);
  measured.operations = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  measured.copies = o->copies;
  measured.launch = [=](int64_t copy) {
    auto of_copy = args;
    of_copy.w = o->weights(copy);
    cuda::baseline::w4a16_matmul(of_copy, *o->lt, o->scratch.data(), stream);
  };
  return measured;
}

}  // namespace

std::vector<Measured> cuda_gemm_baselines(const DeviceContext& device, int64_t m, int64_t n, int64_t k) {
  const auto lt = std::make_shared<CublasLt>();
  std::vector<Measured> all;
  all.push_back(dense(device, lt, kBf16, m, n, k, false));
  all.push_back(dense(device, lt, kFp8, m, n, k, false));
  all.push_back(dense(device, lt, kInt8, m, n, k, true));
  all.back().name = "W8A8";
  all.push_back(w4a16(device, lt, m, n, k));
  return all;
}

std::vector<Measured> cuda_rate_probes(const DeviceContext& device) {
  constexpr int64_t kSize = 8192;
  const auto lt = std::make_shared<CublasLt>();
  std::vector<Measured> all;
  for (const Kind& kind : {kBf16, kFp8, kInt8})
    all.push_back(dense(device, lt, kind, kSize, kSize, kSize, false));
  return all;
}

}  // namespace atom
