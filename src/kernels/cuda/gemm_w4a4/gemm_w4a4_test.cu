#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/convert.cuh"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4_testing.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

/// Elements between the rows of Y: they begin at any alignment.
constexpr int64_t kPadding = 3;

class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    ATOM_CUDA_CHECK(cudaMalloc(&data_, std::max<size_t>(bytes, 16)));
  }
  template <class T>
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size() * sizeof(T)) {
    ATOM_CUDA_CHECK(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::vector<uint8_t> read() const {
    std::vector<uint8_t> bytes(bytes_);
    ATOM_CUDA_CHECK(cudaMemcpy(bytes.data(), data_, bytes_, cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

float element(const std::vector<uint8_t>& bytes, DType type, int64_t i) {
  if (type == DType::f32) return reinterpret_cast<const float*>(bytes.data())[i];
  if (type == DType::f16) return __half2float(reinterpret_cast<const __half*>(bytes.data())[i]);
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(bytes.data())[i]);
}

/// One problem on the device: outputs of any of the kernels, over memory of known contents.
class Problem {
 public:
  Problem(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, int bits, bool extreme = false)
      : host(n, groups, n_outlier, tokens, bits, static_cast<uint32_t>(n + groups + tokens), extreme),
        weight_(host.weight),
        x_(host.x),
        x_scales_(host.x_scales) {
    context.sm_count = sm_count();
  }

  GemmW4A4 gemm(DType type, bool accumulate) const {
    return {weight_.as<uint8_t>(), host.n,          host.groups,
            host.n_outlier,        x_.as<int8_t>(), x_scales_.as<float>(),
            host.tokens,           nullptr,         type,
            host.n + kPadding,     accumulate};
  }
  /// Runs f on fresh outputs: 0.5 and so on to be added to, or NaN to be overwritten. What lies between rows
  /// and behind the last one must survive.
  template <class F>
  std::vector<uint8_t> output(DType type, bool accumulate, F&& f) {
    GemmW4A4 g = gemm(type, accumulate);
    const size_t element_bytes = size_of(type), count = host.tokens * g.y_stride + 64;
    std::vector<uint8_t> before(count * element_bytes, 0xFF);
    if (accumulate) {
      for (int64_t i = 0; i < host.tokens * g.y_stride; ++i) {
        if (i % g.y_stride >= host.n) continue;
        const float value = 0.5f * static_cast<float>(i % 7) - 1.0f;
        const __half h = __float2half(value);
        const __nv_bfloat16 b = __float2bfloat16(value);
        std::memcpy(before.data() + i * element_bytes,
                    type == DType::f32   ? static_cast<const void*>(&value)
                    : type == DType::f16 ? static_cast<const void*>(&h)
                                         : static_cast<const void*>(&b),
                    element_bytes);
      }
    }
    Buffer y(before);
    g.y = y.as<void>();
    f(g);
    ATOM_CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<uint8_t> after = y.read();
    for (size_t i = 0; i < count; ++i) {
      const bool inside =
          static_cast<int64_t>(i) < host.tokens * g.y_stride && static_cast<int64_t>(i) % g.y_stride < host.n;
      if (!inside) {
        EXPECT_EQ(
            std::memcmp(after.data() + i * element_bytes, before.data() + i * element_bytes, element_bytes),
            0)
            << "element " << i << " is not an output";
      }
    }
    return after;
  }

  testing::HostGemm host;
  GemmContext context;

 private:
  Buffer weight_, x_, x_scales_;
};

class GemmW4A4Test : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU";
  }
};

/// The first outputs that differ by bits.
void expect_same(const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, DType type,
                 const char* what) {
  if (got == want) return;
  for (size_t i = 0; i < got.size() / size_of(type); ++i) {
    if (std::memcmp(got.data() + i * size_of(type), want.data() + i * size_of(type), size_of(type)) != 0) {
      ADD_FAILURE() << what << ": element " << i << " is " << element(got, type, i) << " instead of "
                    << element(want, type, i);
      return;
    }
  }
}

struct Shape {
  int64_t n, groups, n_outlier;
};
const Shape kShapes[] = {{1, 4, 64},    {100, 1, 0},     {100, 1, 100},  {576, 4, 64},  {960, 11, 128},
                         {576, 11, 64}, {3072, 31, 128}, {300, 85, 128}, {200, 1, 500}, {128, 2, 512}};
const int64_t kTokens[] = {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 100, 128};

std::string name(const Problem& p) {
  return fmt::format("n {} groups {} outliers {} tokens {}", p.host.n, p.host.groups, p.host.n_outlier,
                     p.host.tokens);
}

TEST_F(GemmW4A4Test, ReferenceIsTheContract) {
  for (const Shape& shape : {Shape{1, 4, 64}, Shape{100, 1, 0}, Shape{130, 3, 100}, Shape{300, 5, 128}}) {
    for (const int64_t tokens : {1, 9, 33}) {
      for (const int bits : {4, 8}) {
        for (const bool extreme : {false, true}) {
          Problem problem(shape.n, shape.groups, shape.n_outlier, tokens, bits, extreme);
          SCOPED_TRACE(name(problem));
          const auto y = problem.output(DType::f32, false,
                                        [&](const GemmW4A4& g) { gemm_w4a4_reference(problem.context, g); });
          for (int64_t m = 0; m < tokens; ++m) {
            for (int64_t r = 0; r < shape.n; ++r) {
              const float want = problem.host.product(m, r);
              const float got = element(y, DType::f32, m * (shape.n + kPadding) + r);
              ASSERT_EQ(std::memcmp(&want, &got, 4), 0)
                  << m << ", " << r << ": " << got << " instead of " << want;
            }
          }
        }
      }
    }
  }
}

void expect_all_same(Problem& problem, DType type, bool accumulate) {
  const auto want =
      problem.output(type, accumulate, [&](const GemmW4A4& g) { gemm_w4a4_reference(problem.context, g); });
  expect_same(
      problem.output(type, accumulate, [&](const GemmW4A4& g) { gemm_w4a4_sm90(problem.context, g); }), want,
      type, "dispatched");
  // Few multiprocessors: many tiles for each, and clusters that share the last ones.
  for (const int sms : {24, 4}) {
    GemmContext context = problem.context;
    context.sm_count = sms;
    expect_same(problem.output(type, accumulate, [&](const GemmW4A4& g) { gemm_w4a4_sm90(context, g); }),
                want, type, "on few multiprocessors");
  }
}

TEST_F(GemmW4A4Test, IsBitIdenticalToTheReference) {
  for (const Shape& shape : kShapes) {
    for (const int64_t tokens : kTokens) {
      // Packing large ones takes the host long.
      if (shape.n > 2000 && tokens % 16 != 0) continue;
      Problem problem(shape.n, shape.groups, shape.n_outlier, tokens, tokens % 2 == 0 ? 4 : 8);
      SCOPED_TRACE(name(problem));
      const bool all = shape.n <= 200 || tokens <= 16;
      for (const auto& [type, accumulate] : {std::tuple(DType::f32, false), std::tuple(DType::f16, true),
                                             std::tuple(DType::bf16, false), std::tuple(DType::f32, true)}) {
        if (all || type == DType::f32) expect_all_same(problem, type, accumulate);
      }
    }
  }
}

TEST_F(GemmW4A4Test, LargestOperands) {
  for (const int64_t tokens : {3, 16, 40, 128}) {
    for (const int bits : {4, 8}) {
      Problem problem(333, 31, 128, tokens, bits, true);
      SCOPED_TRACE(name(problem));
      expect_all_same(problem, DType::f32, false);
    }
  }
}

TEST_F(GemmW4A4Test, EveryNumberOfTokens) {
  for (int64_t tokens = 1; tokens <= 128; ++tokens) {
    Problem problem(333, 5, 128, tokens, tokens % 4 == 1 ? 4 : 8);
    SCOPED_TRACE(name(problem));
    expect_all_same(problem, DType::f32, false);
  }
}

TEST_F(GemmW4A4Test, ManyTokens) {
  for (const int64_t tokens : {129, 300, 600}) {
    Problem problem(400, 3, 400, tokens, 4);
    SCOPED_TRACE(name(problem));
    expect_all_same(problem, DType::f32, true);
  }
}

/// Launches that overlap (programmatic dependent launch).
TEST_F(GemmW4A4Test, LaunchesInARow) {
  for (const int64_t tokens : {3, 24, 64}) {
    Problem problem(1100, 9, 64, tokens, 4);
    SCOPED_TRACE(name(problem));
    const auto once = [&](const GemmW4A4& g) { gemm_w4a4_sm90(problem.context, g); };
    const auto want = problem.output(DType::f32, false, once);
    expect_same(problem.output(DType::f32, false,
                               [&](const GemmW4A4& g) {
                                 for (int i = 0; i < 100; ++i) once(g);
                               }),
                want, DType::f32, "in a row");
  }
}

TEST_F(GemmW4A4Test, RejectsWhatItCannotDo) {
  Problem problem(16, 1, 0, 1, 4);
  GemmW4A4 gemm = problem.gemm(DType::i8, false);
  EXPECT_THROW(gemm_w4a4_sm90(problem.context, gemm), Error);
  gemm = problem.gemm(DType::f32, false);
  gemm.y_stride = 15;
  EXPECT_THROW(gemm_w4a4_sm90(problem.context, gemm), Error);
  gemm = problem.gemm(DType::f32, false);
  gemm.n_outlier = 4096;
  EXPECT_THROW(gemm_w4a4_sm90(problem.context, gemm), Error);
  gemm = problem.gemm(DType::f32, false);
  gemm.tokens = 0;
  gemm_w4a4_sm90(problem.context, gemm);
}

}  // namespace
}  // namespace atom::cuda
