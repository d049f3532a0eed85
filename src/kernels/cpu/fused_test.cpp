#include "kernels/cpu/fused.h"

#include "kernels/fused_test_support.h"
#include "tensor/half.h"

// Every implementation of the fused ops against the reference, bit for bit.
namespace atom {
namespace {

using namespace fused_test;

/// Runs `make(out)` for every runnable implementation and compares what each leaves in its own outputs.
template <class Op, class Make, class Same>
void compare(RanNote& note, const Make& make, const Same& same) {
  auto expected = make();
  const auto candidates = runnable(expected.op);
  candidates.back().run(DeviceContext{}, expected.op);
  for (const auto& candidate : candidates) {
    auto actual = make();
    candidate.run(best_device(), actual.op);
    note.add(candidate.name);
    ASSERT_TRUE(same(actual, expected)) << candidate.name;
  }
}

template <class Op>
struct FloatCase {
  Matrix<float> out;
  Op op;
};

template <class Op>
struct QuantizedCase {
  std::unique_ptr<QuantizedActivations> out = std::make_unique<QuantizedActivations>();
  Op op;
};

template <class Case>
::testing::AssertionResult same_outputs(const Case& a, const Case& b) {
  if constexpr (requires { a.out.span(); }) {
    return same_floats(a.out.data(), b.out.data(), a.out.rows() * a.out.cols());
  } else {
    return same_activations(*a.out, *b.out);
  }
}

/// Layouts with every raggedness: of the last group, of groups against vectors, none normal, no outliers.
std::vector<ActivationSpec> specs() {
  std::vector<ActivationSpec> all;
  struct Shape {
    int64_t k, n_outlier, group;
  };
  const Shape shapes[] = {{576, 64, 128},   {576, 0, 128},    {576, 576, 128},  {576, 0, 576},
                          {1536, 128, 128}, {4096, 128, 128}, {5000, 77, 128},  {9000, 8, 9000},
                          {9000, 8900, 64}, {100, 7, 32},     {33, 1, 5},       {1, 0, 128},
                          {1, 1, 128},      {17, 0, 16},      {31, 15, 1},      {300, 3, 129},
                          {64, 32, 31},     {2049, 0, 2048},  {20000, 300, 128}};
  for (const Shape& s : shapes) {
    for (const OutlierType type : {OutlierType::int8, OutlierType::fp16}) {
      all.push_back({{s.k, s.n_outlier, s.group, type}, 4, 0.9f});
      all.push_back({{s.k, s.n_outlier, s.group, type}, 8, 1.0f});
    }
    for (const int bits : {4, 8}) {
      all.push_back({{s.k, s.n_outlier, s.group, OutlierType::int8, true}, bits, bits == 4 ? 0.9f : 1.0f});
    }
  }
  return all;
}

TEST(FusedLevels, EmbeddingLookup) {
  RanNote note("EmbeddingLookup");
  Random random(1);
  for (const int64_t hidden : {1, 7, 8, 9, 16, 31, 33, 576}) {
    const Matrix<float> table = random_matrix(random, 50, hidden, Kind::outliers);
    std::vector<uint16_t> bits;
    for (int64_t i = 0; i < 50 * hidden; ++i) {
      // Any 16-bit pattern but signalling NaNs, whose quieting is the processor's business.
      const auto h = static_cast<uint16_t>(random.next());
      bits.push_back((h & 0x7F80u) == 0x7F80u || (h & 0x7C00u) == 0x7C00u ? 0x3C00u : h);
    }
    std::vector<int32_t> tokens;
    for (int i = 0; i < 13; ++i) tokens.push_back(static_cast<int32_t>(random.below(50)));
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const void* data = dtype == DType::f32 ? static_cast<const void*>(table.data()) : bits.data();
      const auto make = [&] {
        FloatCase<EmbeddingLookup> c{Matrix<float>(13, hidden), {tokens, dtype, data, {}}};
        c.op.out = c.out.view();
        return c;
      };
      compare<EmbeddingLookup>(note, make, same_outputs<FloatCase<EmbeddingLookup>>);
    }
  }
}

TEST(FusedLevels, RmsNorm) {
  RanNote note("RmsNorm");
  Random random(2);
  for (const Kind kind : kKinds) {
    for (const int64_t n : {1, 5, 8, 15, 16, 17, 24, 31, 32, 33, 100, 576, 4096, 5001}) {
      const Matrix<float> x = random_matrix(random, 3, n, kind);
      const Matrix<float> weight = random_matrix(random, 1, n);
      const auto make = [&] {
        FloatCase<RmsNorm> c{Matrix<float>(3, n), {x.view(), weight.data(), 1e-5f, {}}};
        c.op.out = c.out.view();
        return c;
      };
      compare<RmsNorm>(note, make, same_outputs<FloatCase<RmsNorm>>);
    }
  }
}

TEST(FusedLevels, AddBiasAndHeadNorm) {
  RanNote note("AddBias, HeadNorm");
  Random random(22);
  for (const Kind kind : kKinds) {
    for (const int64_t head_dim : {2, 6, 16, 31, 64, 128, 200}) {
      const int64_t cols = 3 * head_dim, stride = cols + 5;
      const Matrix<float> x = random_matrix(random, 4, stride, kind);
      const Matrix<float> bias = random_matrix(random, 1, cols, kind);
      const Matrix<float> weight = random_matrix(random, 1, head_dim);
      const auto make_of = [&](auto op) {
        FloatCase<decltype(op)> c{Matrix<float>(4, stride), op};
        std::copy(x.span().begin(), x.span().end(), c.out.span().begin());
        c.op.x = c.out.view().col_range(1, 1 + cols);
        return c;
      };
      const AddBias add{{}, bias.data()};
      compare<AddBias>(
          note, [&] { return make_of(add); }, same_outputs<FloatCase<AddBias>>);
      const HeadNorm norm{{}, head_dim, weight.data(), 1e-6f};
      compare<HeadNorm>(
          note, [&] { return make_of(norm); }, same_outputs<FloatCase<HeadNorm>>);
    }
  }
}

TEST(FusedLevels, RmsNormQuantize) {
  RanNote note("RmsNormQuantize");
  Random random(3);
  for (const ActivationSpec& spec : specs()) {
    const int64_t k = spec.layout.k;
    const auto permutation = random_permutation(random, k);
    const Matrix<float> weight = random_matrix(random, 1, k);
    for (const Kind kind : kKinds) {
      const Matrix<float> x = random_matrix(random, 2, k, kind);
      for (const bool reorder : {false, true}) {
        const auto make = [&] {
          QuantizedCase<RmsNormQuantize> c;
          c.out->resize(2, spec);
          c.op = {x.view(), weight.data(), 1e-6f, reorder ? permutation.data() : nullptr, c.out.get()};
          return c;
        };
        compare<RmsNormQuantize>(note, make, same_outputs<QuantizedCase<RmsNormQuantize>>);
      }
    }
  }
}

TEST(FusedLevels, ReorderQuantize) {
  RanNote note("ReorderQuantize");
  Random random(4);
  for (const ActivationSpec& spec : specs()) {
    const int64_t k = spec.layout.k;
    const auto permutation = random_permutation(random, k);
    for (const Kind kind : kKinds) {
      const Matrix<float> x = random_matrix(random, 2, k, kind);
      for (const bool reorder : {false, true}) {
        const auto make = [&] {
          QuantizedCase<ReorderQuantize> c;
          c.out->resize(2, spec);
          c.op = {x.view(), reorder ? permutation.data() : nullptr, c.out.get()};
          return c;
        };
        compare<ReorderQuantize>(note, make, same_outputs<QuantizedCase<ReorderQuantize>>);
      }
    }
  }
}

TEST(FusedLevels, SiluMul) {
  RanNote note("SiluMul");
  Random random(5);
  // Scaled so that the exponential meets both ends of its range.
  for (const float factor : {1.0f, 30.0f, 1e4f}) {
    for (const Kind kind : kKinds) {
      for (const int64_t inner : {1, 7, 8, 9, 16, 17, 100, 1536}) {
        Matrix<float> gate_up = random_matrix(random, 3, 2 * inner, kind);
        for (float& x : gate_up.span()) x *= factor;
        const auto make = [&] {
          FloatCase<SiluMul> c{Matrix<float>(3, inner), {std::as_const(gate_up).view(), {}}};
          c.op.out = c.out.view();
          return c;
        };
        compare<SiluMul>(note, make, same_outputs<FloatCase<SiluMul>>);
      }
    }
  }
}

TEST(FusedLevels, SiluMulQuantize) {
  RanNote note("SiluMulQuantize");
  Random random(6);
  for (const ActivationSpec& spec : specs()) {
    for (const Kind kind : kKinds) {
      const Matrix<float> gate_up = random_matrix(random, 2, 2 * spec.layout.k, kind);
      const auto make = [&] {
        QuantizedCase<SiluMulQuantize> c;
        c.out->resize(2, spec);
        c.op = {gate_up.view(), c.out.get()};
        return c;
      };
      compare<SiluMulQuantize>(note, make, same_outputs<QuantizedCase<SiluMulQuantize>>);
    }
  }
}

TEST(FusedLevels, RandomShapes) {
  RanNote note("RmsNormQuantize, random shapes");
  Random random(7);
  for (int round = 0; round < 400; ++round) {
    ActivationSpec spec;
    spec.layout.k = 1 + static_cast<int64_t>(random.below(700));
    spec.layout.n_outlier = static_cast<int64_t>(random.below(static_cast<uint64_t>(spec.layout.k) + 1));
    spec.layout.group = 1 + static_cast<int64_t>(random.below(300));
    spec.layout.outlier_type = random.below(2) == 0 ? OutlierType::int8 : OutlierType::fp16;
    spec.layout.integer_scales = spec.layout.outlier_type == OutlierType::int8 && random.below(2) == 0;
    spec.bits = random.below(2) == 0 ? 4 : 8;
    spec.clip = random.below(2) == 0 ? 1.0f : 0.85f;
    const int64_t tokens = 1 + static_cast<int64_t>(random.below(4));
    const Matrix<float> x = random_matrix(random, tokens, spec.layout.k, kKinds[random.below(7)]);
    const Matrix<float> weight = random_matrix(random, 1, spec.layout.k);
    const auto permutation = random_permutation(random, spec.layout.k);
    const auto make = [&] {
      QuantizedCase<RmsNormQuantize> c;
      c.out->resize(tokens, spec);
      c.op = {x.view(), weight.data(), 1e-5f, permutation.data(), c.out.get()};
      return c;
    };
    compare<RmsNormQuantize>(note, make, same_outputs<QuantizedCase<RmsNormQuantize>>);
  }
}

struct LogSumExpCase {
  std::vector<double> out;
  LogSumExp op;
};

TEST(FusedLevels, LogSumExp) {
  RanNote note("LogSumExp");
  Random random(10);
  for (const float factor : {1.0f, 30.0f, 1e4f}) {
    for (const Kind kind : kKinds) {
      for (const int64_t n : {1, 7, 8, 15, 16, 17, 100, 1023, 1024, 1025, 1031, 5000}) {
        Matrix<float> x = random_matrix(random, 3, n, kind);
        for (float& value : x.span()) value *= factor;
        const auto make = [&] {
          LogSumExpCase c{std::vector<double>(3), {std::as_const(x).view(), {}}};
          c.op.out = c.out;
          return c;
        };
        compare<LogSumExp>(note, make, [](const LogSumExpCase& a, const LogSumExpCase& b) {
          for (size_t t = 0; t < 3; ++t) {
            if (a.out[t] != b.out[t] && !(std::isnan(a.out[t]) && std::isnan(b.out[t]))) return false;
          }
          return true;
        });
      }
    }
  }
}

struct SampleCase {
  std::vector<int32_t> out;
  Sample op;
};

TEST(FusedLevels, Sample) {
  RanNote note("Sample");
  Random random(11);
  for (const Kind kind : kKinds) {
    for (const int64_t n : {1, 7, 8, 15, 16, 17, 100, 1031, 5000}) {
      const Matrix<float> x = random_matrix(random, 8, n, kind);
      std::vector<SampleParams> params;
      for (int t = 0; t < 8; ++t) {
        params.push_back({.temperature = t == 0 ? 0.0f : 0.7f,
                          .top_p = t % 2 == 0 ? 1.0f : 0.9f,
                          .min_p = t % 3 == 0 ? 0.01f : 0.0f,
                          .top_k = t % 4 == 0 ? 20 : 0,
                          .random = random.next()});
      }
      const auto make = [&] {
        SampleCase c{std::vector<int32_t>(8), {x.view(), params, {}}};
        c.op.out = c.out;
        return c;
      };
      compare<Sample>(note, make, [](const SampleCase& a, const SampleCase& b) { return a.out == b.out; });
    }
  }
}

TEST(FusedLevels, ThreadsAndBatchDoNotChangeAToken) {
  Random random(8);
  ThreadPool pool(3);
  const int64_t tokens = 301;
  const Matrix<float> x = random_matrix(random, tokens, 576, Kind::outliers);
  const Matrix<float> weight = random_matrix(random, 1, 576);
  const auto permutation = random_permutation(random, 576);
  for (const bool integer : {false, true}) {
    const ActivationSpec spec{{576, 64, 128, OutlierType::int8, integer}, 4, 0.9f};
    QuantizedActivations batch;
    batch.resize(tokens, spec);
    run(best_device(&pool), RmsNormQuantize{x.view(), weight.data(), 1e-5f, permutation.data(), &batch});
    QuantizedActivations one;
    one.resize(1, spec);
    for (int64_t t = 0; t < tokens; ++t) {
      run(best_device(),
          RmsNormQuantize{x.view().row_range(t, t + 1), weight.data(), 1e-5f, permutation.data(), &one});
      ASSERT_EQ(std::memcmp(one.values(0), batch.values(t), static_cast<size_t>(one.stride())), 0) << t;
      ASSERT_TRUE(same_floats(one.scales(0), batch.scales(t), one.scale_stride())) << t;
      ASSERT_EQ(one.unit(0), batch.unit(t)) << t;
    }
  }
}

TEST(FusedLevels, StridedRowsAndNoTokens) {
  Random random(9);
  Matrix<float> wide = random_matrix(random, 5, 100);
  const Matrix<float> weight = random_matrix(random, 1, 40);
  const MatrixView<const float> x = std::as_const(wide).view().col_range(60, 100);
  Matrix<float> dense(5, 40);
  for (int64_t t = 0; t < 5; ++t) std::copy(x.row(t), x.row(t) + 40, dense.row(t));
  Matrix<float> a(5, 40), b(5, 40);
  run(best_device(), RmsNorm{x, weight.data(), 1e-5f, a.view()});
  run(best_device(), RmsNorm{std::as_const(dense).view(), weight.data(), 1e-5f, b.view()});
  EXPECT_TRUE(same_floats(a.data(), b.data(), 200));
  Matrix<float> none(0, 40);
  run(best_device(), RmsNorm{std::as_const(none).view(), weight.data(), 1e-5f, none.view()});
}

}  // namespace
}  // namespace atom
