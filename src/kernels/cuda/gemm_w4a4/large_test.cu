#include <algorithm>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/gemm_w4a4/gemm_w4a4_testing.h"
#include "kernels/cuda/gemm_w4a4/large.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::large {
namespace {

struct Case {
  int64_t tokens, n, groups, n_outlier;
  int bits;
  DType type;
  int64_t padding;  ///< Elements between rows of y, which must survive
  bool accumulate;
};
const Case kCases[] = {
    {64, 128, 1, 0, 4, DType::f32, 0, false},     {100, 200, 3, 64, 4, DType::f32, 4, false},
    {192, 1000, 4, 128, 4, DType::f32, 0, false}, {300, 321, 5, 100, 8, DType::f32, 3, true},
    {257, 384, 2, 256, 8, DType::f16, 8, false},  {129, 65, 7, 30, 4, DType::bf16, 1, true},
    {512, 576, 31, 128, 4, DType::f16, 0, true},  {300, 256, 0, 256, 4, DType::f32, 0, false}};

template <class T>
T* to_device(const std::vector<T>& values) {
  T* data = nullptr;
  ATOM_CUDA_CHECK(cudaMalloc(&data, values.size() * sizeof(T)));
  ATOM_CUDA_CHECK(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

/// Every tile, on a whole device and on six multiprocessors (so that each computes several tiles), gives the
/// bits of the reference kernel, over memory of known contents.
TEST(GemmW4A4Large, IsBitIdenticalToTheReference) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU";
  for (const Case& c : kCases) {
    const testing::HostGemm host(c.n, c.groups, c.n_outlier, c.tokens, c.bits, static_cast<uint32_t>(c.n));
    uint8_t* weight = to_device(host.weight);
    int8_t* x = to_device(host.x);
    float* sx = to_device(host.sx);
    const int64_t stride = c.n + c.padding;
    std::vector<uint8_t> before(c.tokens * stride * size_of(c.type));
    // Finite in all three types.
    for (size_t i = 0; i < before.size(); ++i) before[i] = static_cast<uint8_t>(i % 53);
    uint8_t* y = to_device(before);
    const GemmW4A4 gemm{weight, c.n, c.groups, c.n_outlier, x, sx, c.tokens, y, c.type, stride, c.accumulate};
    const auto run = [&](const auto& launch) {
      ATOM_CUDA_CHECK(cudaMemcpy(y, before.data(), before.size(), cudaMemcpyHostToDevice));
      launch();
      ATOM_CUDA_CHECK(cudaDeviceSynchronize());
      std::vector<uint8_t> bytes(before.size());
      ATOM_CUDA_CHECK(cudaMemcpy(bytes.data(), y, bytes.size(), cudaMemcpyDeviceToHost));
      return bytes;
    };
    GemmContext context;
    ASSERT_TRUE(gemm_w4a4_large_supports(gemm));
    const auto want = run([&] { gemm_w4a4_reference(context, gemm); });
    for (const LargeConfig& config : large_configs()) {
      if (host.blocks.stride() % config.tokens != 0) continue;
      for (const int sm_count : {132, 6}) {
        context.sm_count = sm_count;
        EXPECT_EQ(run([&] { launch(context, gemm, config); }), want)
            << c.tokens << " tokens, n " << c.n << ", tile " << config.rows << " x " << config.tokens
            << ", cluster " << config.cluster << ", " << sm_count << " multiprocessors";
      }
    }
    for (void* data :
         {static_cast<void*>(weight), static_cast<void*>(x), static_cast<void*>(sx), static_cast<void*>(y)})
      ATOM_CUDA_CHECK(cudaFree(data));
  }
}

}  // namespace
}  // namespace atom::cuda::large
