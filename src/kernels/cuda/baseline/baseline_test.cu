#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_runtime_api.h>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/baseline/w4a16/config.h"
#include "kernels/cuda/baseline/w4a16/w4a16.h"
#include "kernels/cuda/runtime.h"
#include "tensor/float8.h"
#include "tensor/half.h"

namespace atom::cuda::baseline {
namespace {

bool no_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) != cudaSuccess || count == 0;
}

#define SKIP_WITHOUT_GPU() \
  if (no_gpu()) GTEST_SKIP() << "no CUDA device"

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    ATOM_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<size_t>(count, 1) * sizeof(T)));
    ATOM_CUDA_CHECK(cudaMemset(data_, 0xFF, count * sizeof(T)));  // NaN in every float type
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    ATOM_CUDA_CHECK(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(count_);
    ATOM_CUDA_CHECK(cudaDeviceSynchronize());
    ATOM_CUDA_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

size_t bytes_of(OperandType type) {
  return type == OperandType::f16 || type == OperandType::bf16 ? 2 : 1;
}

size_t bytes_of(ResultType type) {
  return type == ResultType::f16 || type == ResultType::bf16 ? 2 : 4;
}

/// Random elements of `type`: their bytes, and what they mean.
struct Operand {
  std::vector<uint8_t> bytes;
  std::vector<double> values;

  Operand(OperandType type, size_t count, uint64_t seed) : bytes(count * bytes_of(type)), values(count) {
    Random random(seed);
    for (size_t i = 0; i < count; ++i) {
      const auto x = static_cast<float>(random.uniform() - 0.5);
      uint16_t half = 0;
      switch (type) {
        case OperandType::f16:
          half = float_to_half(x), values[i] = half_to_float(half);
          break;
        case OperandType::bf16:
          half = float_to_bfloat16(x), values[i] = bfloat16_to_float(half);
          break;
        case OperandType::e4m3:
          bytes[i] = static_cast<uint8_t>(random.below(2) * 128 + random.below(0x60));
          values[i] = float8_to_float(bytes[i]);
          break;
        case OperandType::s8:
          bytes[i] = static_cast<uint8_t>(random.below(255) - 127);
          values[i] = static_cast<int8_t>(bytes[i]);
          break;
      }
      if (bytes_of(type) == 2) std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
};

std::vector<double> decode(ResultType type, const std::vector<uint8_t>& bytes) {
  std::vector<double> values(bytes.size() / bytes_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t half = 0;
    float single = 0;
    int32_t integer = 0;
    const uint8_t* at = &bytes[i * bytes_of(type)];
    std::memcpy(bytes_of(type) == 2 ? static_cast<void*>(&half) : static_cast<void*>(&single), at,
                bytes_of(type));
    std::memcpy(&integer, at, std::min<size_t>(4, bytes_of(type)));
    values[i] = type == ResultType::f16    ? half_to_float(half)
                : type == ResultType::bf16 ? bfloat16_to_float(half)
                : type == ResultType::f32  ? static_cast<double>(single)
                                           : integer;
  }
  return values;
}

std::vector<uint8_t> encode(ResultType type, const std::vector<double>& values) {
  std::vector<uint8_t> bytes(values.size() * bytes_of(type));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto single = static_cast<float>(values[i]);
    const uint16_t half = type == ResultType::f16 ? float_to_half(single) : float_to_bfloat16(single);
    const auto integer = static_cast<int32_t>(values[i]);
    const void* from = bytes_of(type) == 2       ? static_cast<const void*>(&half)
                       : type == ResultType::f32 ? static_cast<const void*>(&single)
                                                 : &integer;
    std::memcpy(&bytes[i * bytes_of(type)], from, bytes_of(type));
  }
  return bytes;
}

/// The largest |y - expected| over what rounding may make of it: of the result (of the sum too, before it is
/// added to y), and of sums, which the tensor cores keep in less than f32 for e4m3.
double worst(ResultType type, const std::vector<double>& y, const std::vector<double>& expected,
             const std::vector<double>& magnitude, bool fp8 = false, double start = 0) {
  const double rounding = type == ResultType::f16    ? 0x1p-10
                          : type == ResultType::bf16 ? 0x1p-7
                          : type == ResultType::f32  ? 0x1p-22
                                                     : 0;
  double largest = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double rounded = std::fabs(expected[i]) + std::fabs(expected[i] - start) + std::fabs(start);
    const double bound =
        type == ResultType::s32 ? 0.5 : rounded * rounding + magnitude[i] * (fp8 ? 0x1p-11 : 0x1p-14) + 1e-6;
    const double error = std::fabs(y[i] - expected[i]) / bound;
    largest = std::isfinite(error) ? std::max(largest, error) : INFINITY;
  }
  return largest;
}

/// y = x * w^T + start in double, and the sum of the terms' magnitudes.
void reference(int64_t m, int64_t n, int64_t k, const std::vector<double>& x, const std::vector<double>& w,
               std::vector<double>& y, std::vector<double>& magnitude) {
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0, absolute = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double term = x[static_cast<size_t>(r * k + i)] * w[static_cast<size_t>(c * k + i)];
        sum += term, absolute += std::fabs(term);
      }
      y[static_cast<size_t>(r * n + c)] += sum;
      magnitude[static_cast<size_t>(r * n + c)] = absolute;
    }
  }
}

struct Case {
  OperandType type;
  ResultType result;
};

constexpr Case kCases[] = {
    {OperandType::f16, ResultType::f32},   {OperandType::f16, ResultType::f16},
    {OperandType::bf16, ResultType::f32},  {OperandType::bf16, ResultType::bf16},
    {OperandType::e4m3, ResultType::bf16}, {OperandType::e4m3, ResultType::f16},
    {OperandType::e4m3, ResultType::f32},  {OperandType::s8, ResultType::s32},
};

TEST(CublasLt, EveryTypeAndNumberOfTokens) {
  SKIP_WITHOUT_GPU();
  CublasLt lt;
  const int64_t n = 192, k = 256;
  for (const Case& c : kCases) {
    for (const int64_t m : {1, 2, 5, 16, 17, 100}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE("type " + std::to_string(static_cast<int>(c.type)) + " result " +
                     std::to_string(static_cast<int>(c.result)) + " m " + std::to_string(m) +
                     (accumulate ? " accumulate" : ""));
        const Operand x(c.type, static_cast<size_t>(m * k), 1), w(c.type, static_cast<size_t>(n * k), 2);
        std::vector<double> expected(static_cast<size_t>(m * n), accumulate ? 3.0 : 0.0), magnitude(expected);
        const DeviceArray<uint8_t> dx(x.bytes), dw(w.bytes);
        const DeviceArray<uint8_t> y = accumulate
                                           ? DeviceArray<uint8_t>(encode(c.result, expected))
                                           : DeviceArray<uint8_t>(expected.size() * bytes_of(c.result));
        reference(m, n, k, x.values, w.values, expected, magnitude);
        MatmulArgs args;
        args.type = c.type, args.result = c.result;
        args.m = m, args.n = n, args.k = k;
        args.x = dx.get(), args.w = dw.get(), args.y = y.get();
        args.accumulate = accumulate;
        ASSERT_NO_THROW(lt.matmul(args, nullptr));
        EXPECT_LE(worst(c.result, decode(c.result, y.host()), expected, magnitude,
                        c.type == OperandType::e4m3, accumulate ? 3.0 : 0.0),
                  1.0);
      }
    }
  }
}

TEST(CublasLt, ScalesOfFp8) {
  SKIP_WITHOUT_GPU();
  CublasLt lt;
  const int64_t m = 33, n = 256, k = 512;
  const Operand x(OperandType::e4m3, static_cast<size_t>(m * k), 1);
  const Operand w(OperandType::e4m3, static_cast<size_t>(n * k), 2);
  const DeviceArray<uint8_t> dx(x.bytes), dw(w.bytes);
  for (const auto& [rows, fast] : {std::pair(false, false), {true, false}, {false, true}}) {
    std::vector<float> sx(static_cast<size_t>(rows ? m : 1)), sw(static_cast<size_t>(rows ? n : 1));
    for (size_t i = 0; i < sx.size(); ++i) sx[i] = 0.5f + static_cast<float>(i % 7) / 8;
    for (size_t i = 0; i < sw.size(); ++i) sw[i] = 0.25f + static_cast<float>(i % 5) / 4;
    std::vector<double> expected(static_cast<size_t>(m * n)), magnitude(expected);
    reference(m, n, k, x.values, w.values, expected, magnitude);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double scale = static_cast<double>(sx[rows ? i / static_cast<size_t>(n) : 0]) *
                           static_cast<double>(sw[rows ? i % static_cast<size_t>(n) : 0]);
      expected[i] *= scale, magnitude[i] *= scale;
    }
    const DeviceArray<float> dsx(sx), dsw(sw);
    const DeviceArray<uint8_t> y(expected.size() * 2);
    MatmulArgs args;
    args.type = OperandType::e4m3, args.result = ResultType::bf16;
    args.m = m, args.n = n, args.k = k;
    args.x = dx.get(), args.w = dw.get(), args.y = y.get();
    args.x_scale = dsx.get(), args.w_scale = dsw.get(), args.row_scales = rows;
    args.fast_sums = fast;
    ASSERT_NO_THROW(lt.matmul(args, nullptr));
    EXPECT_LE(worst(ResultType::bf16, decode(ResultType::bf16, y.host()), expected, magnitude, true), 1.0)
        << rows << fast;
  }
}

TEST(CublasLt, CapturedProducts) {
  SKIP_WITHOUT_GPU();
  CublasLt lt;
  const int64_t m = 8, n = 256, k = 512;
  const Operand x(OperandType::f16, static_cast<size_t>(m * k), 1),
      w(OperandType::f16, static_cast<size_t>(n * k), 2);
  std::vector<double> expected(static_cast<size_t>(m * n)), magnitude(expected);
  reference(m, n, k, x.values, w.values, expected, magnitude);
  const DeviceArray<uint8_t> dx(x.bytes), dw(w.bytes), y(expected.size() * 4);
  MatmulArgs args;
  args.type = OperandType::f16, args.result = ResultType::f32;
  args.m = m, args.n = n, args.k = k;
  args.x = dx.get(), args.w = dw.get(), args.y = y.get();
  cudaStream_t stream = nullptr;
  ATOM_CUDA_CHECK(cudaStreamCreate(&stream));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ATOM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  lt.matmul(args, stream);
  ATOM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  ATOM_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  ATOM_CUDA_CHECK(cudaGraphLaunch(exec, stream));
  EXPECT_LE(worst(ResultType::f32, decode(ResultType::f32, y.host()), expected, magnitude), 1.0);
  ATOM_CUDA_CHECK(cudaGraphExecDestroy(exec));
  ATOM_CUDA_CHECK(cudaGraphDestroy(graph));
  ATOM_CUDA_CHECK(cudaStreamDestroy(stream));
}

TEST(CublasLt, RefusedProductsSayWhy) {
  SKIP_WITHOUT_GPU();
  CublasLt lt;
  const DeviceArray<uint8_t> memory(1 << 16);
  MatmulArgs args;
  args.type = OperandType::e4m3, args.result = ResultType::bf16;
  args.m = 16, args.n = 16, args.k = 17;
  args.x = args.w = memory.get(), args.y = memory.get();
  try {
    lt.matmul(args, nullptr);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("e4m3 with m 16, n 16, k 17"), std::string::npos)
        << error.what();
  }
}

TEST(DequantizeSums, EveryTypeAndOddShapes) {
  SKIP_WITHOUT_GPU();
  for (const ResultType type : {ResultType::f32, ResultType::f16, ResultType::bf16}) {
    for (const auto& [m, n] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 1028}, {5, 37}, {64, 256}}) {
      for (const bool accumulate : {false, true}) {
        Random random(3);
        std::vector<int32_t> sums(static_cast<size_t>(m * n));
        for (auto& s : sums) s = static_cast<int32_t>(random.below(100000)) - 50000;
        std::vector<float> sx(static_cast<size_t>(m)), sw(static_cast<size_t>(n));
        for (auto& s : sx) s = static_cast<float>(random.uniform()) * 0.01f;
        for (auto& s : sw) s = static_cast<float>(random.uniform()) * 0.01f;
        std::vector<double> expected(sums.size(), accumulate ? 2.0 : 0.0), magnitude(sums.size());
        const DeviceArray<uint8_t> y = accumulate ? DeviceArray<uint8_t>(encode(type, expected))
                                                  : DeviceArray<uint8_t>(sums.size() * bytes_of(type));
        for (size_t i = 0; i < sums.size(); ++i) {
          const auto row = i / static_cast<size_t>(n), column = i % static_cast<size_t>(n);
          expected[i] += static_cast<double>(static_cast<float>(sums[i]) * (sx[row] * sw[column]));
        }
        const DeviceArray<int32_t> dsums(sums);
        const DeviceArray<float> dsx(sx), dsw(sw);
        DequantizeSumsArgs args;
        args.m = m, args.n = n;
        args.sums = dsums.get(), args.x_scale = dsx.get(), args.w_scale = dsw.get();
        args.result = type, args.y = y.get(), args.accumulate = accumulate;
        dequantize_sums(args, nullptr);
        EXPECT_LE(worst(type, decode(type, y.host()), expected, magnitude), 1.0) << m << " " << n;
      }
    }
  }
}

TEST(W4A16, AgainstDoubles) {
  SKIP_WITHOUT_GPU();
  CublasLt lt;
  struct Shape {
    int64_t m, n, k;
  };
  for (const auto& [m, n, k] : std::vector<Shape>{{1, 128, 128},
                                                  {1, 1000, 4096},
                                                  {3, 200, 576},
                                                  {8, 384, 1536},
                                                  {16, 136, 2048},
                                                  {27, 256, 160},
                                                  {64, 512, 1024},
                                                  {65, 256, 512},
                                                  {130, 304, 1088},
                                                  {257, 304, 1088}}) {
    for (const ResultType type : {ResultType::f32, ResultType::f16}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE("m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k) +
                     " result " + std::to_string(static_cast<int>(type)));
        Random random(4);
        const int64_t groups = (k + 127) / 128;
        std::vector<uint8_t> values(static_cast<size_t>(n * k / 2));
        for (auto& v : values) v = static_cast<uint8_t>(random.next());
        std::vector<uint16_t> scales(static_cast<size_t>(n * groups));
        for (auto& s : scales) s = float_to_half(0.01f + static_cast<float>(random.uniform()) * 0.1f);
        std::vector<double> w(static_cast<size_t>(n * k));
        for (int64_t row = 0; row < n; ++row) {
          for (int64_t i = 0; i < k; ++i) {
            const uint8_t byte = values[static_cast<size_t>((row * k + i) / 2)];
            const int nibble = i % 2 == 0 ? byte & 15 : byte >> 4;
            const float scale = half_to_float(scales[static_cast<size_t>(row * groups + i / 128)]);
            const auto q = static_cast<float>(nibble < 8 ? nibble : nibble - 16);
            w[static_cast<size_t>(row * k + i)] = half_to_float(float_to_half(q * scale));
          }
        }
        const Operand x(OperandType::f16, static_cast<size_t>(m * k), 5);
        std::vector<double> expected(static_cast<size_t>(m * n), accumulate ? 1.0 : 0.0), magnitude(expected);
        const DeviceArray<uint8_t> y = accumulate ? DeviceArray<uint8_t>(encode(type, expected))
                                                  : DeviceArray<uint8_t>(expected.size() * bytes_of(type));
        reference(m, n, k, x.values, w, expected, magnitude);
        const DeviceArray<uint8_t> dx(x.bytes), dvalues(values);
        const DeviceArray<uint16_t> dscales(scales);
        W4A16Args args;
        args.m = m, args.n = n, args.k = k;
        const DeviceArray<uint8_t> packed(w4a16_packed_bytes(n, k));
        w4a16_pack(dvalues.get(), dscales.get(), n, k, packed.get(), nullptr);
        args.x = dx.get(), args.w = packed.get();
        args.result = type, args.y = y.get(), args.accumulate = accumulate;
        const DeviceArray<uint8_t> scratch(w4a16_scratch_bytes(args));
        ASSERT_NO_THROW(w4a16_matmul(args, lt, scratch.get(), nullptr));
        EXPECT_LE(worst(type, decode(type, y.host()), expected, magnitude, false, accumulate ? 1.0 : 0.0),
                  1.0);
      }
    }
  }
}

TEST(W4A16Config, FillsTheChip) {
  const auto small = w4a16::choose(1, 4096, 4096, 132);
  EXPECT_EQ(small.tokens, 8);
  EXPECT_GT(small.splits, 1);
  EXPECT_EQ(w4a16::choose(64, 57344, 8192, 132).tokens, 64);
  for (int64_t m = 1; m <= w4a16::kMaxTokens; ++m) {
    const auto config = w4a16::choose(m, 256, 128, 132);
    EXPECT_GE(config.tokens, std::min<int64_t>(m, w4a16::kMaxTileTokens));
    EXPECT_EQ(config.splits, 1);  // a single group cannot be split
  }
}

}  // namespace
}  // namespace atom::cuda::baseline
