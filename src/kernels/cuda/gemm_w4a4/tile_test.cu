#include <algorithm>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4_testing.h"
#include "kernels/cuda/gemm_w4a4/launch.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::tiles {
namespace {

struct Case {
  int64_t tokens, n, groups, n_outlier;
  int bits;
  DType type;
  int64_t padding;  ///< Elements between rows of y, which must survive
  bool accumulate;
  int64_t skipped = 0;   ///< Elements before y, which is then not aligned to 16 bytes
  bool extreme = false;  ///< Operands as large as they may be
};
const Case kCases[] = {{64, 128, 1, 0, 4, DType::f32, 0, false},
                       {100, 200, 3, 64, 4, DType::f32, 4, false, 1},
                       {192, 1000, 4, 128, 4, DType::f32, 0, false},
                       {300, 321, 5, 100, 8, DType::f32, 3, true, 1},
                       {257, 384, 2, 256, 8, DType::f16, 8, false},
                       {129, 65, 7, 30, 4, DType::bf16, 1, true, 1},
                       {512, 576, 31, 128, 4, DType::f16, 0, true},
                       {300, 256, 1, 512, 4, DType::bf16, 0, false},
                       {260, 192, 223, 128, 4, DType::f16, 0, false, 0, true},
                       {1100, 385, 9, 190, 4, DType::f16, 7, false, 3},
                       {33, 1, 8, 0, 4, DType::f32, 0, true},
                       {17, 200, 9, 64, 4, DType::f32, 4, true, 1},
                       {31, 391, 23, 128, 4, DType::bf16, 0, false},
                       {48, 576, 12, 400, 8, DType::f16, 8, false, 0, true},
                       {9, 150, 17, 64, 4, DType::bf16, 2, false},
                       {1, 300, 9, 128, 4, DType::f32, 0, false},
                       {3, 128, 33, 64, 8, DType::f16, 8, false},
                       {16, 576, 31, 128, 4, DType::f32, 0, true, 0, true},
                       {13, 130, 3, 0, 8, DType::f16, 0, true}};

template <class T>
T* to_device(const std::vector<T>& values) {
  T* data = nullptr;
  ATOM_CUDA_CHECK(cudaMalloc(&data, values.size() * sizeof(T)));
  ATOM_CUDA_CHECK(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

/// Whether some hundred outputs of y, which lies over `before`, have the bits that the host computes.
template <class Y>
void expect_products(const testing::HostGemm& host, const Case& c, const std::vector<uint8_t>& before,
                     const std::vector<uint8_t>& after) {
  for (int64_t i = 0; i < 400; ++i) {
    const int64_t row = i % 3 == 0 ? c.n - 1 - i % c.n : i * 37 % c.n, token = (i * 61 + 5) % c.tokens;
    const size_t at = (c.skipped + token * (c.n + c.padding) + row) * sizeof(Y);
    Y old, got;
    std::memcpy(&old, before.data() + at, sizeof(Y)), std::memcpy(&got, after.data() + at, sizeof(Y));
    const float product = host.product(token, row);
    const Y want = static_cast<Y>(c.accumulate ? static_cast<float>(old) + product : product);
    ASSERT_EQ(std::memcmp(&want, &got, sizeof(Y)), 0) << "token " << token << ", row " << row;
  }
}

/// Every tile, on a whole device and on six multiprocessors (so that each computes several tiles), gives the
/// bits of the reference kernel, over memory of known contents.
TEST(GemmW4A4Tiles, IsBitIdenticalToTheReference) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU";
  for (const Case& c : kCases) {
    const testing::HostGemm host(c.n, c.groups, c.n_outlier, c.tokens, c.bits, static_cast<uint32_t>(c.n),
                                 c.extreme);
    uint8_t* weight = to_device(host.weight);
    int8_t* x = to_device(host.x);
    float* x_scales = to_device(host.x_scales);
    const int64_t stride = c.n + c.padding;
    std::vector<uint8_t> before((c.skipped + c.tokens * stride) * size_of(c.type));
    // Finite in all three types.
    for (size_t i = 0; i < before.size(); ++i) before[i] = static_cast<uint8_t>(i % 53);
    uint8_t* y = to_device(before);
    const GemmW4A4 gemm{weight, c.n,      c.groups,    c.n_outlier,
                        x,      x_scales, c.tokens,    y + c.skipped * size_of(c.type),
                        c.type, stride,   c.accumulate};
    const auto run = [&](const auto& launch) {
      ATOM_CUDA_CHECK(cudaMemcpy(y, before.data(), before.size(), cudaMemcpyHostToDevice));
      launch();
      ATOM_CUDA_CHECK(cudaDeviceSynchronize());
      std::vector<uint8_t> bytes(before.size());
      ATOM_CUDA_CHECK(cudaMemcpy(bytes.data(), y, bytes.size(), cudaMemcpyDeviceToHost));
      return bytes;
    };
    GemmContext context;
    const auto want = run([&] { gemm_w4a4_reference(context, gemm); });
    if (c.type == DType::f32) expect_products<float>(host, c, before, want);
    if (c.type == DType::f16) expect_products<__half>(host, c, before, want);
    if (c.type == DType::bf16) expect_products<__nv_bfloat16>(host, c, before, want);
    for (const TileConfig& config : tile_configs()) {
      if (host.blocks.stride() % config.tokens != 0) continue;
      if (config.tokens < 256 && !host.blocks.summed()) continue;
      for (const int sm_count : {132, 6}) {
        context.sm_count = sm_count;
        EXPECT_EQ(run([&] { launch(context, gemm, config); }), want)
            << c.tokens << " tokens, n " << c.n << ", tile " << config.rows << " x " << config.tokens << ", "
            << config.splits << " CTAs to a tile, " << config.turns << " turns, " << sm_count
            << " multiprocessors";
      }
    }
    for (void* data : {static_cast<void*>(weight), static_cast<void*>(x), static_cast<void*>(x_scales),
                       static_cast<void*>(y)})
      ATOM_CUDA_CHECK(cudaFree(data));
  }
}

/// Sums that only fit in 32 bits without the offset that weights have in tiles of up to 128 tokens.
TEST(GemmW4A4Tiles, OffsetsMayWrapAround) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no GPU";
  const testing::HostGemm host(64, 600, 0, 16, 4, 1, true, true);
  int64_t biased = 0;
  for (int64_t c = 0; c < 600 * 128; ++c)
    biased += int64_t{128 + 7 * 16} * host.plain_x[static_cast<size_t>(c)];
  ASSERT_LT(biased, INT32_MIN);
  uint8_t* weight = to_device(host.weight);
  int8_t* x = to_device(host.x);
  float* x_scales = to_device(host.x_scales);
  float* y = to_device(std::vector<float>(16 * 64));
  const GemmW4A4 gemm{weight, 64, 600, 0, x, x_scales, 16, y, DType::f32, 64, false};
  for (const TileConfig& config : tile_configs()) {
    if (config.tokens != 16) continue;
    ATOM_CUDA_CHECK(cudaMemset(y, 0xFF, 16 * 64 * sizeof(float)));
    launch(GemmContext{}, gemm, config);
    std::vector<float> got(16 * 64);
    ATOM_CUDA_CHECK(cudaMemcpy(got.data(), y, got.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (int64_t i = 0; i < 16 * 64; ++i)
      ASSERT_EQ(got[static_cast<size_t>(i)], host.product(i / 64, i % 64)) << i;
  }
  for (void* data : {static_cast<void*>(weight), static_cast<void*>(x), static_cast<void*>(x_scales),
                     static_cast<void*>(y)})
    ATOM_CUDA_CHECK(cudaFree(data));
}

TEST(GemmW4A4Tiles, RefusesTilesThatThereAreNot) {
  GemmW4A4 gemm;
  gemm.n = 128, gemm.groups = 1, gemm.y_stride = 128, gemm.tokens = 17;
  EXPECT_THROW(launch({}, gemm, TileConfig{64, 64, 1}), Error);
  // A block of 17 tokens holds 32.
  EXPECT_THROW(launch({}, gemm, TileConfig{128, 64, 1, 1}), Error);
  // More tokens than have sums.
  gemm.tokens = 2000;
  EXPECT_THROW(launch({}, gemm, TileConfig{128, 128, 1, 1}), Error);
}

}  // namespace
}  // namespace atom::cuda::tiles
