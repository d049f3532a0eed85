#pragma once

#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "kernels/ops.h"

/// Inputs and comparisons shared by the tests of the fused ops.
namespace atom::fused_test {

/// Kinds of rows that have gone wrong in quantizing kernels before.
enum class Kind { normal, outliers, ties, zeros, tiny, huge, non_finite };
inline constexpr Kind kKinds[] = {Kind::normal, Kind::outliers, Kind::ties,      Kind::zeros,
                                  Kind::tiny,   Kind::huge,     Kind::non_finite};

/// Roughly normal with unit variance.
inline float normal(Random& random) {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return static_cast<float>(sum - 6);
}

inline float sample(Random& random, Kind kind) {
  switch (kind) {
    case Kind::normal:
      return normal(random);
    case Kind::outliers:
      return normal(random) * (random.below(37) == 0 ? 60.0f : 1.0f);
    case Kind::ties:
      // With a largest magnitude of 7, the scale is 1 and halves are ties.
      return static_cast<float>(static_cast<int64_t>(random.below(29)) - 14) * 0.5f;
    case Kind::zeros:
      return random.below(2) == 0 ? 0.0f : -0.0f;
    case Kind::tiny:
      return normal(random) * 1e-7f;
    case Kind::huge:
      return normal(random) * 1e36f;
    case Kind::non_finite: {
      const uint64_t choice = random.below(40);
      if (choice == 0) return std::numeric_limits<float>::quiet_NaN();
      if (choice == 1) return std::numeric_limits<float>::infinity();
      if (choice == 2) return -std::numeric_limits<float>::infinity();
      return normal(random);
    }
  }
  return 0;
}

inline Matrix<float> random_matrix(Random& random, int64_t rows, int64_t cols, Kind kind = Kind::normal) {
  Matrix<float> matrix(rows, cols);
  for (float& x : matrix.span()) x = sample(random, kind);
  return matrix;
}

/// Equal bit for bit; any NaN equals any other, since processors choose their payload.
inline bool same_bits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

inline ::testing::AssertionResult same_floats(const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!same_bits(a[i], b[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " of " << n << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

/// All of two sets of quantized activations, padding included.
inline ::testing::AssertionResult same_activations(const QuantizedActivations& a,
                                                   const QuantizedActivations& b) {
  if (a.tokens() != b.tokens() || a.stride() != b.stride()) return ::testing::AssertionFailure() << "shapes";
  for (int64_t t = 0; t < a.tokens(); ++t) {
    for (int64_t i = 0; i < a.stride(); ++i) {
      if (a.values(t)[i] != b.values(t)[i]) {
        return ::testing::AssertionFailure() << "token " << t << " value " << i << ": " << int{a.values(t)[i]}
                                             << " and " << int{b.values(t)[i]};
      }
    }
    for (int64_t g = 0; g < a.scale_stride(); ++g) {
      if (!same_bits(a.scales(t)[g], b.scales(t)[g])) {
        return ::testing::AssertionFailure()
               << "token " << t << " scale " << g << ": " << a.scales(t)[g] << " and " << b.scales(t)[g];
      }
      if (a.sums(t)[g] != b.sums(t)[g]) {
        return ::testing::AssertionFailure()
               << "token " << t << " sum " << g << ": " << a.sums(t)[g] << " and " << b.sums(t)[g];
      }
    }
    if (!same_bits(a.unit(t), b.unit(t))) {
      return ::testing::AssertionFailure() << "token " << t << " unit: " << a.unit(t) << " and " << b.unit(t);
    }
    if (a.layout().outlier_type == OutlierType::fp16) {
      const auto same = same_floats(a.outliers_fp16(t), b.outliers_fp16(t), a.layout().n_outlier);
      if (!same)
        return ::testing::AssertionFailure() << "token " << t << " FP16 outliers: " << same.message();
    }
  }
  return ::testing::AssertionSuccess();
}

/// The device with everything this processor has, without a pool.
inline DeviceContext best_device(ThreadPool* pool = nullptr) {
  return {pool, detect_cpu_isa()};
}

/// Implementations of an op that this processor can run, the reference last.
template <class Op>
std::vector<Implementation<Op>> runnable(const Op& op) {
  std::vector<Implementation<Op>> found;
  for (const auto& candidate : implementations<Op>()) {
    if (candidate.supports(best_device(), op)) found.push_back(candidate);
  }
  return found;
}

/// Says in the test's output which implementations were compared with the reference.
class RanNote {
 public:
  explicit RanNote(std::string op) : op_(std::move(op)) {}
  ~RanNote() {
    std::cout << "[   ran    ] " << op_ << ":";
    for (const std::string& name : names_) std::cout << ' ' << name;
    std::cout << '\n';
  }
  void add(const char* name) { names_.insert(name); }

 private:
  std::string op_;
  std::set<std::string> names_;
};

}  // namespace atom::fused_test
