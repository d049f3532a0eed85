#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/cuda/fused/sample.h"

// Sample against the reference, whose tokens it must give.
namespace atom::cuda {
namespace {

using namespace fused_test;

constexpr int kLogitKinds = 9;

/// Rows of models, and rows that make one of the kernel's steps hard: many equal logits (no list is long
/// enough), no finite logit, logits far apart, masked ones.
float logit(Random& random, int kind) {
  const float f = normal(random) * 3.0f;
  switch (kind) {
    case 1:
      return std::round(f);
    case 2:
      return sample(random, Kind::non_finite);
    case 3:
      return random.below(3) == 0 ? -0.0f : 0.0f;
    case 4:
      return f * 20.0f;
    case 5:
      return random.below(2) == 0 ? NAN : -INFINITY;
    case 6:
      return f / 3.0f;
    case 7:
      return random.below(50) == 0 ? f : -1e30f;
    case 8:
      return f * (random.below(17) == 0 ? 1e37f : 1e-37f);
    default:
      return f;
  }
}

SampleParams random_params(Random& random, int64_t vocab) {
  const float temperatures[] = {0.0f, 0.7f, 1.0f, 0.7f, 1e-3f, 100.0f, 1.5f, 1e-30f, 3e38f};
  const float top_ps[] = {1.0f, 0.9f, 0.5f, 0.99f, 1e-6f, 0.0f, 0.9f, 0.3f};
  const float min_ps[] = {0.0f, 0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-9f};
  const auto n = static_cast<int32_t>(vocab);
  const int32_t top_ks[] = {0, 0, 0, 1, 2, 40, 1000, 20000, n, n - 1};
  const uint64_t draws[] = {0, ~uint64_t{0}, random.next(), random.next(), random.next(), random.next()};
  return {.temperature = temperatures[random.below(9)],
          .top_p = top_ps[random.below(8)],
          .min_p = min_ps[random.below(7)],
          .top_k = top_ks[random.below(10)],
          .random = draws[random.below(6)]};
}

TEST(CudaSample, DrawsTheReferencesTokens) {
  ATOM_NEEDS_GPU();
  Random random(1);
  for (const int64_t vocab : {1, 2, 31, 33, 256, 257, 1000, 4097, 32000, 50257, 128256}) {
    const int64_t rows = vocab > 10000 ? 2 * kLogitKinds : 8 * kLogitKinds;
    Matrix<float> logits(rows, vocab);
    std::vector<SampleParams> params;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < vocab; ++i) logits(r, i) = logit(random, static_cast<int>(r % kLogitKinds));
    }
    DeviceMatrix device_logits(DType::f32, logits, 3);
    const MatrixView<const float> view{reinterpret_cast<const float*>(device_logits.bytes.data()), rows,
                                       vocab, device_logits.stride};
    for (int round = 0; round < 4; ++round) {
      params.clear();
      for (int64_t r = 0; r < rows; ++r) params.push_back(random_params(random, vocab));
      std::vector<int32_t> expected(static_cast<size_t>(rows));
      run_reference(Sample{std::as_const(logits).view(), params, expected});
      DeviceArray<SampleParams> device_params(params);
      // 0: as many blocks a row as the op itself takes.
      for (const int cluster : {0, 1, 2, 4, 8}) {
        DeviceArray<int32_t> out(expected.size());
        const Sample op{view, {device_params.data(), params.size()}, {out.data(), expected.size()}};
        cluster == 0 ? cuda::sample(op, nullptr) : cuda::sample(op, cluster, nullptr);
        const auto found = out.read();
        for (size_t r = 0; r < expected.size(); ++r) {
          EXPECT_EQ(found[r], expected[r])
              << "row " << r << " of " << vocab << ", cluster " << cluster << ", temperature "
              << params[r].temperature << ", top_k " << params[r].top_k << ", top_p " << params[r].top_p
              << ", min_p " << params[r].min_p << ", random " << params[r].random;
        }
      }
    }
  }
}

TEST(CudaSample, ARowIsTheSameInAnyBatch) {
  ATOM_NEEDS_GPU();
  Random random(2);
  constexpr int64_t kRows = 150, kVocab = 5000;
  Matrix<float> logits = random_matrix(random, kRows, kVocab, Kind::outliers);
  std::vector<SampleParams> params;
  for (int64_t r = 0; r < kRows; ++r) params.push_back(random_params(random, kVocab));
  DeviceMatrix device_logits(DType::f32, logits, 0);
  const auto* data = reinterpret_cast<const float*>(device_logits.bytes.data());
  DeviceArray<SampleParams> device_params(params);
  DeviceArray<int32_t> together(kRows), alone(kRows);
  cuda::sample({{data, kRows, kVocab}, {device_params.data(), kRows}, {together.data(), kRows}}, nullptr);
  for (int64_t r = 0; r < kRows; ++r) {
    cuda::sample({{data + r * kVocab, 1, kVocab}, {device_params.data() + r, 1}, {alone.data() + r, 1}},
                 nullptr);
  }
  EXPECT_EQ(together.read(), alone.read());
}

TEST(CudaSample, ImpossibleArgumentsAreErrors) {
  ATOM_NEEDS_GPU();
  DeviceArray<SampleParams> params(2);
  DeviceArray<int32_t> out(2);
  EXPECT_THROW(cuda::sample({{nullptr, 1, 0}, {params.data(), 1}, {out.data(), 1}}, nullptr), Error);
  EXPECT_THROW(cuda::sample({{nullptr, 1, sampling::kMaxVocabulary + 1}, {params.data(), 1}, {out.data(), 1}},
                            nullptr),
               Error);
  EXPECT_THROW(cuda::sample({{nullptr, 2, 10}, {params.data(), 1}, {out.data(), 2}}, nullptr), Error);
}

}  // namespace
}  // namespace atom::cuda
