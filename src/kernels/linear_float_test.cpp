#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops.h"
#include "tensor/half.h"

namespace atom {
namespace {

constexpr CpuIsa kLevels[] = {CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512vnni};
constexpr int64_t kPad = 3;

struct Case {
  int64_t m;
  int64_t n;
  int64_t k;
  DType dtype;
  std::vector<float> x;
  std::vector<std::byte> w;

  Case(uint64_t seed, int64_t m_, int64_t n_, int64_t k_, DType dtype_) : m(m_), n(n_), k(k_), dtype(dtype_) {
    Random random(seed);
    x.resize(static_cast<size_t>(m * (k + kPad)));
    for (auto& v : x) v = static_cast<float>(random.uniform() - 0.5);
    // One byte more: 16-bit weights in a mapped file may begin at any address.
    w.resize(static_cast<size_t>(n * k) * size_of(dtype) + 1);
    for (int64_t i = 0; i < n * k; ++i) {
      auto v = static_cast<float>(random.uniform() - 0.5);
      if (random.below(32) == 0) v *= 1e-5f;
      const uint16_t bits = dtype == DType::f16 ? float_to_half(v) : float_to_bfloat16(v);
      if (dtype == DType::f32) {
        std::memcpy(w.data() + 4 * i, &v, sizeof(v));
      } else {
        std::memcpy(w.data() + 1 + 2 * i, &bits, sizeof(bits));
      }
    }
  }

  const void* weights() const { return w.data() + (dtype == DType::f32 ? 0 : 1); }

  float weight(int64_t row, int64_t i) const {
    const int64_t at = row * k + i;
    if (dtype == DType::f32) {
      float v = 0.0f;
      std::memcpy(&v, w.data() + 4 * at, sizeof(v));
      return v;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, w.data() + 1 + 2 * at, sizeof(bits));
    return dtype == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }

  /// y of rows [first, first + count) of x, with what lies beyond the columns of y checked.
  std::vector<float> run_on(const DeviceContext& device, const char* name, bool accumulate, int64_t first = 0,
                            int64_t count = -1) const {
    if (count < 0) count = m;
    const int64_t stride = n + kPad;
    std::vector<float> y(static_cast<size_t>(count * stride), 0.75f);
    const MatrixView<const float> all(x.data(), m, k, k + kPad);
    const LinearFloat op{
        all.row_range(first, first + count), dtype, weights(), {y.data(), count, n, stride}, accumulate};
    EXPECT_STREQ(select(device, op).name, name);
    run(device, op);
    std::vector<float> out;
    for (int64_t t = 0; t < count; ++t) {
      const auto* row = y.data() + t * stride;
      out.insert(out.end(), row, row + n);
      for (int64_t i = n; i < stride; ++i) EXPECT_EQ(row[i], 0.75f) << "store beyond the last column";
    }
    return out;
  }

  /// Largest |y - exact| / (sum of |products|), exact in double.
  double error_of(const std::vector<float>& y, bool accumulate) const {
    double worst = 0.0;
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t row = 0; row < n; ++row) {
        double exact = accumulate ? 0.75 : 0.0;
        double size = exact + 1e-30;
        for (int64_t i = 0; i < k; ++i) {
          const double product = double{x[static_cast<size_t>(t * (k + kPad) + i)]} * double{weight(row, i)};
          exact += product;
          size += std::abs(product);
        }
        worst = std::max(worst, std::abs(double{y[static_cast<size_t>(t * n + row)]} - exact) / size);
      }
    }
    return worst;
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

std::string describe(const Case& c) {
  return "m " + std::to_string(c.m) + " n " + std::to_string(c.n) + " k " + std::to_string(c.k) + " " +
         std::string(name_of(c.dtype));
}

const char* kernel_of(CpuIsa isa) {
  return isa >= CpuIsa::avx512 ? "avx512" : "avx2";
}

void check_half(const Case& c, bool accumulate) {
  SCOPED_TRACE(describe(c));
  static ThreadPool pool(3);
  const auto expected = c.run_on({nullptr, CpuIsa::reference}, "reference", accumulate);
  EXPECT_LT(c.error_of(expected, accumulate), 1e-7 * static_cast<double>(c.k + 1));
  for (const CpuIsa isa : kLevels) {
    if (isa > detect_cpu_isa()) continue;
    EXPECT_TRUE(same_bits(c.run_on({nullptr, isa}, kernel_of(isa), accumulate), expected)) << name_of(isa);
    EXPECT_TRUE(same_bits(c.run_on({&pool, isa}, kernel_of(isa), accumulate), expected))
        << name_of(isa) << " on three threads";
  }
}

TEST(LinearFloat, HalfWeightsEqualTheReferenceForEveryBatchSize) {
  for (int64_t m = 0; m <= 30; ++m) {
    check_half(Case(static_cast<uint64_t>(m), m, 40, 64, m % 2 == 0 ? DType::f16 : DType::bf16), m % 3 == 0);
  }
  check_half(Case(1, 97, 33, 72, DType::f16), false);
  check_half(Case(2, 200, 70, 40, DType::bf16), true);
}

TEST(LinearFloat, HalfWeightsEqualTheReferenceOnEdges) {
  uint64_t seed = 0;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const int64_t n : {1, 15, 16, 31, 32, 33, 64, 95}) {
      for (const int64_t k : {1, 7, 8, 9, 31, 100, 511, 512, 513, 1025}) {
        ++seed;
        check_half(Case(seed, 1 + static_cast<int64_t>(seed % 4), n, k, dtype), seed % 2 == 0);
      }
    }
  }
}

TEST(LinearFloat, RandomShapesOfHalfWeights) {
  Random random(99);
  for (int i = 0; i < 100; ++i) {
    const auto m = static_cast<int64_t>(1 + random.below(120));
    const auto n = static_cast<int64_t>(1 + random.below(100));
    const auto k = static_cast<int64_t>(1 + random.below(200));
    check_half(Case(random.next(), m, n, k, random.below(2) == 0 ? DType::f16 : DType::bf16), i % 2 == 0);
  }
}

TEST(LinearFloat, SpecialHalfWeightsAreConvertedExactly) {
  // Every finite f16 and bf16, one a row, times 1.
  for (const DType dtype : {DType::f16, DType::bf16}) {
    std::vector<uint16_t> w;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto h = static_cast<uint16_t>(bits);
      if (std::isfinite(dtype == DType::f16 ? half_to_float(h) : bfloat16_to_float(h))) w.push_back(h);
    }
    const auto n = static_cast<int64_t>(w.size());
    const float one = 1.0f;
    for (const CpuIsa isa : kLevels) {
      if (isa > detect_cpu_isa()) continue;
      std::vector<float> y(w.size());
      run({nullptr, isa},
          LinearFloat{MatrixView<const float>(&one, 1, 1), dtype, w.data(), {y.data(), 1, n}, false});
      for (size_t i = 0; i < w.size(); ++i) {
        ASSERT_EQ(y[i], dtype == DType::f16 ? half_to_float(w[i]) : bfloat16_to_float(w[i]));
      }
    }
  }
}

TEST(LinearFloat, ATokenDoesNotDependOnItsBatch) {
  const Case c(3, 130, 50, 576, DType::f16);
  for (const CpuIsa isa : kLevels) {
    if (isa > detect_cpu_isa()) continue;
    const DeviceContext device{nullptr, isa};
    const auto whole = c.run_on(device, kernel_of(isa), false);
    for (int64_t t = 0; t < c.m; ++t) {
      const auto alone = c.run_on(device, kernel_of(isa), false, t, 1);
      EXPECT_EQ(0, std::memcmp(alone.data(), whole.data() + t * c.n, alone.size() * sizeof(float)));
    }
  }
}

TEST(LinearFloat, OpenBlasAgreesWithDoubleUpToRounding) {
  if (detect_cpu_isa() < CpuIsa::avx2) {
    std::printf("the reference runs instead of OpenBLAS on this processor\n");
    return;
  }
  static ThreadPool pool(3);
  uint64_t seed = 0;
  for (const int64_t m : {0, 1, 2, 5, 64, 300}) {
    for (const int64_t n : {1, 63, 96, 200, 577}) {
      for (const int64_t k : {1, 64, 333}) {
        const Case c(++seed, m, n, k, DType::f32);
        SCOPED_TRACE(describe(c));
        const bool accumulate = seed % 2 == 0;
        const auto serial = c.run_on({nullptr, CpuIsa::avx2}, "openblas", accumulate);
        EXPECT_LT(c.error_of(serial, accumulate), 1e-6);
        EXPECT_TRUE(same_bits(c.run_on({&pool, CpuIsa::avx2}, "openblas", accumulate), serial))
            << "depends on the number of threads";
      }
    }
  }
}

TEST(LinearFloat, ReferenceOfFloatWeights) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Case c(seed, 3, 17, 1 + static_cast<int64_t>(seed) * 13, DType::f32);
    const auto y = c.run_on({nullptr, CpuIsa::reference}, "reference", seed % 2 == 0);
    EXPECT_LT(c.error_of(y, seed % 2 == 0), 1e-7 * static_cast<double>(c.k + 1));
  }
}

}  // namespace
}  // namespace atom
