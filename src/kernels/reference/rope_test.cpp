#include "kernels/reference/rope.h"

#include "kernels/rope_test_support.h"

// The reference RopeAppend against plain double-precision arithmetic and the properties it has to have.
namespace atom::reference {
namespace {

using namespace fused_test;

std::vector<double> row_of(const Matrix<float>& m, int64_t t, int64_t head, int64_t head_dim) {
  return {m.row(t) + head * head_dim, m.row(t) + (head + 1) * head_dim};
}

std::vector<double> rope_in_double(const std::vector<double>& x, int64_t position) {
  const size_t half = x.size() / 2;
  std::vector<double> out(x.size());
  for (size_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(x.size());
    const double angle = static_cast<double>(position) * std::pow(10000.0, exponent);
    out[i] = x[i] * std::cos(angle) - x[i + half] * std::sin(angle);
    out[i + half] = x[i + half] * std::cos(angle) + x[i] * std::sin(angle);
  }
  return out;
}

/// Multiplication by the Sylvester Hadamard matrix: entry (i, j) is (-1)^popcount(i & j) / sqrt(n).
std::vector<double> hadamard_in_double(const std::vector<double>& x) {
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) {
      out[i] +=
          (__builtin_popcountll(i & j) % 2 == 0 ? x[j] : -x[j]) / std::sqrt(static_cast<double>(x.size()));
    }
  }
  return out;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], tolerance) << i;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST(ReferenceRope, MatchesDoubleWithAndWithoutHadamard) {
  Random random(1);
  for (const int64_t head_dim : {2, 4, 8, 16, 32, 64, 128}) {
    for (const bool rotate : {false, true}) {
      RopeBatch batch(random, 5, 6, 2, head_dim);
      const RopeBatch before(batch);
      const TestCache cache(KvFormat::f32, 1, 8, 2, head_dim);
      rope_append({}, batch.op(rotate, cache.view));
      for (int64_t t = 0; t < 5; ++t) {
        const auto expected = [&](const Matrix<float>& m, int64_t head) {
          const auto x =
              rope_in_double(row_of(m, t, head, head_dim), before.positions[static_cast<size_t>(t)]);
          return rotate ? hadamard_in_double(x) : x;
        };
        for (int64_t h = 0; h < 6; ++h)
          expect_near(row_of(batch.q, t, h, head_dim), expected(before.q, h), 1e-5);
        for (int64_t h = 0; h < 2; ++h)
          expect_near(row_of(batch.k, t, h, head_dim), expected(before.k, h), 1e-5);
        for (int64_t h = 0; h < 2; ++h) {
          expect_near(row_of(batch.v, t, h, head_dim), row_of(before.v, t, h, head_dim), 0.0);
        }
      }
    }
  }
}

TEST(ReferenceRope, HadamardTwiceIsTheIdentity) {
  Random random(2);
  for (const int64_t head_dim : {2, 16, 64, 256}) {
    RopeBatch batch(random, 3, 4, 2, head_dim);
    std::fill(batch.positions.begin(), batch.positions.end(), 0);
    const RopeBatch before(batch);
    const TestCache cache(KvFormat::f32, 1, 8, 2, head_dim);
    rope_append({}, batch.op(true, cache.view));
    rope_append({}, batch.op(true, cache.view));
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t h = 0; h < 4; ++h) {
        expect_near(row_of(batch.q, t, h, head_dim), row_of(before.q, t, h, head_dim), 2e-5);
      }
    }
  }
}

TEST(ReferenceRope, KeepsNormsAndScores) {
  Random random(3);
  const int64_t head_dim = 64;
  RopeBatch plain(random, 4, 1, 1, head_dim);
  RopeBatch rotated(plain);
  const RopeBatch before(plain);
  const TestCache cache(KvFormat::f32, 1, 8, 1, head_dim);
  rope_append({}, plain.op(false, cache.view));
  rope_append({}, rotated.op(true, cache.view));
  for (int64_t t = 0; t < 4; ++t) {
    const auto q = row_of(plain.q, t, 0, head_dim);
    const auto q0 = row_of(before.q, t, 0, head_dim);
    EXPECT_NEAR(dot(q, q), dot(q0, q0), 1e-4);
    for (int64_t s = 0; s < 4; ++s) {
      const auto k = row_of(plain.k, s, 0, head_dim);
      EXPECT_NEAR(dot(row_of(rotated.q, t, 0, head_dim), row_of(rotated.k, s, 0, head_dim)), dot(q, k), 1e-4);
    }
  }
}

TEST(ReferenceRope, ScoresDependOnRelativePositionOnly) {
  Random random(4);
  const int64_t head_dim = 64;
  const RopeBatch original(random, 1, 1, 1, head_dim);
  const TestCache cache(KvFormat::f32, 1, 8, 1, head_dim);
  const auto at = [&](int32_t position) {
    RopeBatch batch(original);
    batch.positions = {position};
    rope_append({}, batch.op(false, cache.view));
    return std::pair(row_of(batch.q, 0, 0, head_dim), row_of(batch.k, 0, 0, head_dim));
  };
  const double near = dot(at(17).first, at(5).second);
  const double far = dot(at(517).first, at(505).second);
  const double other = dot(at(517).first, at(504).second);
  EXPECT_NEAR(near, far, 2e-3);
  EXPECT_GT(std::fabs(near - other), 1e-2);
}

TEST(ReferenceRope, StoredRowsAreWithinTheBoundOfTheirFormat) {
  Random random(5);
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const Kind kind : {Kind::normal, Kind::outliers, Kind::zeros, Kind::ties}) {
      for (const int64_t head_dim : {2, 6, 64, 128}) {
        RopeBatch batch(random, 20, 3, 3, head_dim, kind);
        const TestCache cache(format, 5, 16, 3, head_dim);
        batch.slots = random_slots(random, 20, 80);
        rope_append({}, batch.op(false, cache.view));
        for (int64_t t = 0; t < 20; ++t) {
          for (int64_t h = 0; h < 3; ++h) {
            for (const bool key : {true, false}) {
              const auto x = row_of(key ? batch.k : batch.v, t, h, head_dim);
              const auto stored = cache.read(key, batch.slots[static_cast<size_t>(t)], h);
              const auto [low, high] = std::minmax_element(x.begin(), x.end());
              const double largest = std::max(std::fabs(*low), std::fabs(*high));
              // Half a step, and what fp16 rounding of minimum and scale (over all its steps) may add.
              double bound = largest * 0x1p-11 + 0x1p-25;
              if (format == KvFormat::f32) bound = 0;
              if (is_quantized(format)) {
                const double levels = format == KvFormat::int8 ? 255 : 15;
                bound += (*high - *low) / levels * 0.501 + (*high - *low) * 0x1p-11 + levels * 0x1p-25 + 1e-6;
              }
              expect_near(stored, x, bound);
            }
          }
        }
      }
    }
  }
}

TEST(ReferenceRope, NegativeSlotsAreRotatedButNotStored) {
  Random random(6);
  RopeBatch batch(random, 3, 1, 1, 8);
  const RopeBatch before(batch);
  batch.slots = {-1, 5, -7};
  const TestCache cache(KvFormat::int8, 2, 4, 1, 8);
  rope_append({}, batch.op(false, cache.view));
  expect_near(row_of(batch.q, 2, 0, 8), rope_in_double(row_of(before.q, 2, 0, 8), before.positions[2]), 1e-5);
  const auto untouched = [](const std::byte* begin, const std::byte* end) {
    return std::all_of(begin, end, [](std::byte b) { return b == std::byte{0xA5}; });
  };
  // Slot 5 is the second row of the second block.
  EXPECT_TRUE(untouched(cache.keys.data(), cache.keys.data() + 40));
  EXPECT_FALSE(untouched(cache.keys.data() + 40, cache.keys.data() + 48));
  EXPECT_TRUE(untouched(cache.keys.data() + 48, cache.keys.data() + 64));
}

TEST(ReferenceRope, HalvesInTheCacheAreFinite) {
  Random random(8);
  RopeBatch batch(random, 1, 1, 1, 16);
  std::fill(batch.v.span().begin(), batch.v.span().end(), -1e30f);
  batch.slots = {0};
  const TestCache cache(KvFormat::f16, 1, 1, 1, 16);
  rope_append({}, batch.op(false, cache.view));
  expect_near(cache.read(false, 0, 0), std::vector<double>(16, -65504.0), 0.0);
}

TEST(ReferenceRope, ConstantRowsAreStoredExactly) {
  Random random(7);
  for (const KvFormat format : {KvFormat::int8, KvFormat::int4}) {
    RopeBatch batch(random, 1, 1, 1, 16);
    std::fill(batch.v.span().begin(), batch.v.span().end(), 1.5f);
    batch.slots = {0};
    const TestCache cache(format, 1, 1, 1, 16);
    rope_append({}, batch.op(false, cache.view));
    expect_near(cache.read(false, 0, 0), std::vector<double>(16, 1.5), 0.0);
  }
}

}  // namespace
}  // namespace atom::reference
