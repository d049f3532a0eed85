#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/cuda/fused/logit_ops.h"

// ChangeLogits and TopColumns against the reference, whose bits they must give.
namespace atom::cuda {
namespace {

using namespace fused_test;

constexpr int64_t kVocabularies[] = {1, 2, 31, 32, 33, 1000, 1023, 1024, 1025, 4096, 32000, 49152, 128257};

/// Rows of models, and ties, zeros of both signs, what is not finite.
Matrix<float> logits_of(Random& random, int64_t rows, int64_t vocab) {
  Matrix<float> x(rows, vocab);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < vocab; ++i) {
      float f = normal(random) * 3.0f;
      if (r % 6 == 1) f = std::round(f);
      if (r % 6 == 2) f = sample(random, Kind::non_finite);
      if (r % 6 == 3) f = random.below(3) == 0 ? -0.0f : 0.0f;
      if (r % 6 == 4) f = random.below(static_cast<uint64_t>(vocab)) < 5 ? f : -INFINITY;
      if (r % 6 == 5) f = random.below(2) == 0 ? NAN : INFINITY;
      x(r, i) = f;
    }
  }
  return x;
}

template <class T>
std::span<const T> span_of(DeviceArray<T>& array, size_t count) {
  return {array.data(), count};
}

TEST(CudaTopColumns, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(1);
  constexpr int64_t kRows = 12;
  for (const int64_t vocab : kVocabularies) {
    Matrix<float> x = logits_of(random, kRows, vocab);
    DeviceMatrix device_x(DType::f32, x, 3);
    const MatrixView<const float> view{reinterpret_cast<const float*>(device_x.bytes.data()), kRows, vocab,
                                       device_x.stride};
    for (const int64_t k : {1, 2, 5, 20, 32}) {
      const auto count = static_cast<size_t>(kRows * k);
      std::vector<int32_t> columns(count);
      std::vector<float> values(count);
      run_reference(TopColumns{std::as_const(x).view(), k, columns, values});
      DeviceArray<int32_t> device_columns(count);
      DeviceArray<float> device_values(count);
      top_columns({view, k, {device_columns.data(), count}, {device_values.data(), count}}, nullptr);
      EXPECT_EQ(device_columns.read(), columns) << vocab << ", k " << k;
      const auto found = device_values.read();
      EXPECT_TRUE(same_floats(found.data(), values.data(), kRows * k)) << vocab << ", k " << k;
    }
  }
}

TEST(CudaChangeLogits, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(2);
  constexpr int64_t kRows = 14, kMasks = 4;
  for (const int64_t vocab : kVocabularies) {
    const int64_t words = (vocab + 31) / 32;
    // Masks of nothing, of everything, of some.
    std::vector<uint32_t> masks(static_cast<size_t>(kMasks * words));
    for (int64_t i = words; i < kMasks * words; ++i) {
      masks[static_cast<size_t>(i)] =
          i < 2 * words ? ~uint32_t{0} : static_cast<uint32_t>(random.next() & random.next());
    }
    std::vector<int32_t> first{0}, mask_of;
    std::vector<LogitChange> changes;
    for (int64_t r = 0; r < kRows; ++r) {
      // Also more than a block has threads, with tokens that meet within a block's turn and across.
      const uint64_t n = r % 3 == 0 ? 0 : r % 3 == 1 ? random.below(30) : 500 + random.below(1500);
      for (uint64_t i = 0; i < n; ++i) {
        changes.push_back({static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab))),
                           random.below(2) == 0 ? 1.0f : 1.3f, random.below(2) == 0 ? 0.0f : normal(random)});
      }
      first.push_back(static_cast<int32_t>(changes.size()));
      mask_of.push_back(static_cast<int32_t>(random.below(kMasks + 1)) - 1);
    }
    Matrix<float> x = logits_of(random, kRows, vocab);
    DeviceMatrix device_x(DType::f32, x, 5);
    DeviceArray<int32_t> device_first(first), device_mask_of(mask_of);
    DeviceArray<LogitChange> device_changes(changes);
    DeviceArray<uint32_t> device_masks(masks);
    const MatrixView<float> view{reinterpret_cast<float*>(device_x.bytes.data()), kRows, vocab,
                                 device_x.stride};
    change_logits({view, span_of(device_first, first.size()), span_of(device_changes, changes.size()),
                   span_of(device_mask_of, mask_of.size()), span_of(device_masks, masks.size())},
                  nullptr);
    const std::vector<float> found = decode(DType::f32, device_x.bytes.read());
    run_reference(ChangeLogits{x.view(), first, changes, mask_of, masks});
    for (int64_t r = 0; r < kRows; ++r) {
      EXPECT_TRUE(same_floats(found.data() + r * view.stride, x.row(r), vocab)) << vocab << ", row " << r;
      for (int64_t i = vocab; i < view.stride; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &found[static_cast<size_t>(r * view.stride + i)], sizeof(bits));
        EXPECT_EQ(bits, 0xA5A5A5A5u) << "written behind row " << r;
      }
    }
  }
}

TEST(CudaLogitOps, ImpossibleArgumentsAreErrors) {
  ATOM_NEEDS_GPU();
  DeviceArray<float> x(200), values(66);
  DeviceArray<int32_t> columns(66);
  const MatrixView<const float> view{x.data(), 2, 100};
  EXPECT_THROW(top_columns({view, 0, {}, {}}, nullptr), Error);
  EXPECT_THROW(top_columns({view, 33, {columns.data(), 66}, {values.data(), 66}}, nullptr), Error);
  EXPECT_THROW(top_columns({view, 5, {columns.data(), 9}, {values.data(), 9}}, nullptr), Error);
  EXPECT_THROW(change_logits({{x.data(), 2, 100}, {}, {}, {}, {}}, nullptr), Error);
}

}  // namespace
}  // namespace atom::cuda
