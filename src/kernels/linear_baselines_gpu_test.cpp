#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda.h"
#include "kernels/random_operands.h"
#include "tensor/half.h"

// The linear layers of the baselines through the op tables of a GPU, against the CPU's: the same bits where
// the GPU is exact (INT8 always is), within what FP16 operands and the tensor cores' sums cost where it is
// fast.

namespace atom {
namespace {

constexpr int64_t kPad = 4;

struct Devices {
  CudaHandle handle = open_cuda(*first_cuda_device());
  DeviceContext cpu{nullptr, detect_cpu_isa()};
  DeviceContext gpu = cpu;

  explicit Devices(bool exact) {
    gpu.cuda = handle.device.get();
    gpu.memory = handle.memory;
    gpu.exact = exact;
  }
};

struct Shape {
  int64_t m, n, k;
};

std::string describe(const Shape& s) {
  return "m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " + std::to_string(s.k);
}

/// Floats of about [-2, 2] on a device, the same on all.
Buffer<float> floats(const DeviceContext& device, int64_t count, uint64_t seed) {
  return random_buffer<float>(device, count, DType::f32, 1.0f, 0.0f, seed);
}

/// y of a low-bit layer of random weights whose channels are all outliers of `type`, at first random where
/// `accumulate`, and the name of what ran.
std::vector<float> run_dense(const DeviceContext& device, const Shape& s, OutlierType type, bool accumulate,
                             std::string* name) {
  ActivationSpec spec;
  spec.layout = {s.k, s.k, 128, type};
  spec.bits = 8;
  spec.scale = 0.03125f;
  const PreparedWeight w = prepare(device, random_weight(device, s.n, spec.layout, 8, 1));
  const Buffer<float> x = floats(device, s.m * s.k, 2);
  QuantizedActivations q(device.memory);
  q.resize(s.m, spec);
  run(device, ReorderQuantize{MatrixView<const float>(x.data(), s.m, s.k), nullptr, &q});
  Buffer<float> y = floats(device, s.m * (s.n + kPad), 3);
  const LinearLowBit op{&q, &w, {y.data(), s.m, s.n, s.n + kPad}, accumulate};
  *name = select(device, op).name;
  run(device, op);
  const Buffer<float> host = y.clone();
  return {host.begin(), host.end()};
}

std::vector<float> run_weight_only(const DeviceContext& device, const Shape& s, int64_t group, bool half,
                                   bool accumulate, std::string* name) {
  const PreparedWeight w = prepare(device, random_weight(device, s.n, {s.k, 0, group}, 16, 1));
  // Values of f16: then f16 operands are no other ones.
  const Buffer<uint16_t> x16 = random_buffer<uint16_t>(device, s.m * s.k, DType::f16, 1.0f, 0.0f, 2);
  const Buffer<uint16_t> host16 = x16.clone();
  std::vector<float> x32;
  for (const uint16_t bits : host16) x32.push_back(half_to_float(bits));
  const Buffer<float> x = Buffer<float>::copy_of(x32, device.memory);
  Buffer<float> y = floats(device, s.m * (s.n + kPad), 3);
  const FloatInput in = half ? FloatInput(x16.data(), DType::f16, s.m, s.k)
                             : FloatInput(MatrixView<const float>(x.data(), s.m, s.k));
  const LinearWeightOnly op{in, &w, {y.data(), s.m, s.n, s.n + kPad}, accumulate};
  *name = select(device, op).name;
  run(device, op);
  const Buffer<float> host = y.clone();
  return {host.begin(), host.end()};
}

void expect_same_bits(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(std::memcmp(&found[i], &expected[i], 4), 0) << i << ": " << found[i] << ", " << expected[i];
  }
}

/// |found - expected| / |expected|, and every element of the padding the same.
double relative_error(const Shape& s, const std::vector<float>& found, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (static_cast<int64_t>(i) % (s.n + kPad) >= s.n) {
      EXPECT_EQ(found[i], expected[i]) << "store beyond the last column";
    }
    difference += std::pow(double{found[i]} - double{expected[i]}, 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

#define SKIP_WITHOUT_GPU() \
  if (!first_cuda_device()) GTEST_SKIP() << "no GPU that this build has kernels for"

TEST(CudaW8A8, EqualsTheCpu) {
  SKIP_WITHOUT_GPU();
  for (const bool exact : {true, false}) {
    const Devices devices(exact);
    for (const Shape& s : {Shape{1, 16, 16}, Shape{1, 100, 4096}, Shape{5, 37, 80}, Shape{17, 256, 576},
                           Shape{64, 1000, 1536}, Shape{300, 48, 256}, Shape{3, 20, 100}}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(describe(s) + (accumulate ? " accumulate" : ""));
        std::string name;
        const auto expected = run_dense(devices.cpu, s, OutlierType::int8, accumulate, &name);
        const auto found = run_dense(devices.gpu, s, OutlierType::int8, accumulate, &name);
        EXPECT_EQ(name, s.k % 16 == 0 ? "cublas_lt" : "reference");
        expect_same_bits(found, expected);
      }
    }
  }
}

TEST(CudaFloat8, EqualsTheCpuOrIsNear) {
  SKIP_WITHOUT_GPU();
  for (const bool exact : {true, false}) {
    const Devices devices(exact);
    for (const Shape& s : {Shape{1, 16, 16}, Shape{1, 112, 4096}, Shape{5, 48, 80}, Shape{64, 512, 1536},
                           Shape{300, 48, 256}, Shape{3, 20, 100}}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(describe(s) + (exact ? " exact" : "") + (accumulate ? " accumulate" : ""));
        std::string name;
        const auto expected = run_dense(devices.cpu, s, OutlierType::fp8, accumulate, &name);
        const auto found = run_dense(devices.gpu, s, OutlierType::fp8, accumulate, &name);
        const bool fast = !exact && s.k % 16 == 0 && s.n % 16 == 0;
        EXPECT_EQ(name, fast ? "cublas_lt" : "reference");
        if (fast) {
          // Sums lose up to 2^-13 of their largest term with every product that is added.
          EXPECT_LT(relative_error(s, found, expected), 2e-3);
        } else {
          expect_same_bits(found, expected);
        }
      }
    }
  }
}

TEST(CudaW4A16, EqualsTheCpuOrIsNear) {
  SKIP_WITHOUT_GPU();
  for (const bool exact : {true, false}) {
    const Devices devices(exact);
    for (const Shape& s : {Shape{1, 16, 128}, Shape{1, 300, 4096}, Shape{16, 130, 576}, Shape{33, 256, 1536},
                           Shape{64, 512, 1024}, Shape{100, 256, 512}}) {
      for (const int64_t group : {128, 64}) {
        for (const bool accumulate : {false, true}) {
          SCOPED_TRACE(describe(s) + (exact ? " exact" : "") + (accumulate ? " accumulate" : ""));
          const bool fast = !exact && group == 128;
          std::string name;
          const auto expected = run_weight_only(devices.cpu, s, group, false, accumulate, &name);
          const auto found = run_weight_only(devices.gpu, s, group, false, accumulate, &name);
          EXPECT_EQ(name, fast ? "w4a16_sm90" : "cuda_exact");
          if (!fast) {
            expect_same_bits(found, expected);
            continue;
          }
          // FP16 operands are exact here: what differs is the order of float sums.
          EXPECT_LT(relative_error(s, found, expected), 1e-5);
          expect_same_bits(run_weight_only(devices.gpu, s, group, true, accumulate, &name), found);
        }
      }
    }
  }
}

TEST(CudaLinearFloat, TakesActivationsOfTheTypeOfItsWeights) {
  SKIP_WITHOUT_GPU();
  const Devices devices(false);
  const int64_t m = 5, n = 64, k = 256;
  for (const DType type : {DType::f16, DType::bf16}) {
    EXPECT_EQ(choose_input_type(devices.gpu, type, k), type);
    EXPECT_EQ(choose_input_type(devices.gpu, type, k + 1), DType::f32);
    EXPECT_EQ(choose_input_type(devices.cpu, type, k), DType::f32);
    const auto x = random_buffer<uint16_t>(devices.gpu, m * k, type, 1.0f, 0.0f, 1);
    const auto w = random_buffer<uint16_t>(devices.gpu, n * k, type, 1.0f, 0.0f, 2);
    const Buffer<uint16_t> host = x.clone();
    std::vector<float> wide;
    for (const uint16_t bits : host) {
      wide.push_back(type == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits));
    }
    const Buffer<float> x32 = Buffer<float>::copy_of(wide, devices.gpu.memory);
    Buffer<float> y(static_cast<size_t>(m * n), devices.gpu.memory), y32(y.size(), devices.gpu.memory);
    const LinearFloat narrow{FloatInput(x.data(), type, m, k), type, w.data(), {y.data(), m, n}};
    EXPECT_STREQ(select(devices.gpu, narrow).name, "cublas_lt");
    run(devices.gpu, narrow);
    run(devices.gpu,
        LinearFloat{MatrixView<const float>(x32.data(), m, k), type, w.data(), {y32.data(), m, n}});
    const Buffer<float> a = y.clone(), b = y32.clone();
    expect_same_bits({a.begin(), a.end()}, {b.begin(), b.end()});
  }
}

}  // namespace
}  // namespace atom
