#include "kernels/cpu/rope.h"

#include "kernels/rope_test_support.h"

// Every implementation of RopeAppend against the reference, bit for bit.
namespace atom {
namespace {

using namespace fused_test;

constexpr KvFormat kFormats[] = {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4};

::testing::AssertionResult same_caches(const TestCache& a, const TestCache& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() &&
           (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0);
  };
  if (!same(a.keys, b.keys)) return ::testing::AssertionFailure() << "keys";
  if (!same(a.values, b.values)) return ::testing::AssertionFailure() << "values";
  if (!same(a.key_params, b.key_params)) return ::testing::AssertionFailure() << "key parameters";
  if (!same(a.value_params, b.value_params)) return ::testing::AssertionFailure() << "value parameters";
  return ::testing::AssertionSuccess();
}

/// Runs every implementation on copies of `batch` and compares q, k and the caches.
void compare(RanNote& note, const RopeBatch& batch, bool rotate, const TestCache& shape, bool caches) {
  const KvLayerView& s = shape.view;
  const auto fresh = [&] { return TestCache(s.format, s.n_blocks, s.block_size, s.n_kv_heads, s.head_dim); };
  RopeBatch expected(batch);
  const TestCache expected_cache = fresh();
  implementations<RopeAppend>().back().run({}, expected.op(rotate, expected_cache.view));
  RopeBatch probe(batch);
  for (const auto& candidate : runnable(probe.op(rotate, s))) {
    RopeBatch actual(batch);
    const TestCache cache = fresh();
    candidate.run(best_device(), actual.op(rotate, cache.view));
    note.add(candidate.name);
    ASSERT_TRUE(same_floats(actual.q.data(), expected.q.data(), actual.q.rows() * actual.q.cols()))
        << candidate.name;
    ASSERT_TRUE(same_floats(actual.k.data(), expected.k.data(), actual.k.rows() * actual.k.cols()))
        << candidate.name;
    if (!caches) continue;
    ASSERT_TRUE(same_caches(cache, expected_cache)) << candidate.name;
  }
}

TEST(RopeLevels, AllFormatsHeadSizesAndKinds) {
  RanNote note("RopeAppend");
  Random random(1);
  for (const KvFormat format : kFormats) {
    for (const int64_t head_dim : {2, 8, 16, 32, 48, 64, 80, 96, 128, 256}) {
      for (const Kind kind : kKinds) {
        const int64_t n_kv_heads = 1 + static_cast<int64_t>(random.below(3));
        RopeBatch batch(random, 7, 3 * n_kv_heads, n_kv_heads, head_dim, kind);
        const TestCache shape(format, 3, 5, n_kv_heads, head_dim);
        batch.slots = random_slots(random, 7, 15);
        batch.slots[random.below(7)] = -1;
        // The bits of NaN in a float cache are the processor's business.
        const bool caches = kind != Kind::non_finite || is_quantized(format);
        compare(note, batch, false, shape, caches);
        const bool power_of_two = (head_dim & (head_dim - 1)) == 0;
        if (power_of_two) compare(note, batch, true, shape, caches);
      }
    }
  }
}

TEST(RopeLevels, VectorVersionsTakeTheUsualHeadSizes) {
  Random random(2);
  for (const int64_t head_dim : {64, 80, 96, 128}) {
    RopeBatch batch(random, 1, 2, 1, head_dim);
    const TestCache cache(KvFormat::int4, 1, 1, 1, head_dim);
    if (detect_cpu_isa() == CpuIsa::reference) GTEST_SKIP() << "this processor has no AVX2";
    EXPECT_STRNE(select(best_device(), batch.op(false, cache.view)).name, "reference") << head_dim;
  }
}

TEST(RopeLevels, ThreadsAndPagesDoNotChangeATokensRow) {
  Random random(3);
  ThreadPool pool(3);
  for (const KvFormat format : kFormats) {
    const int64_t tokens = 400;
    RopeBatch batch(random, tokens, 9, 3, 64);
    RopeBatch moved(batch);
    batch.slots = random_slots(random, tokens, 512);
    moved.slots = random_slots(random, tokens, 512);
    const TestCache a(format, 32, 16, 3, 64);
    const TestCache b(format, 64, 8, 3, 64);
    run(best_device(&pool), batch.op(true, a.view));
    run(best_device(), moved.op(true, b.view));
    EXPECT_TRUE(same_floats(batch.q.data(), moved.q.data(), tokens * 9 * 64));
    for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
      for (int64_t h = 0; h < 3; ++h) {
        for (const bool key : {true, false}) {
          ASSERT_EQ(a.read(key, batch.slots[t], h), b.read(key, moved.slots[t], h)) << t;
        }
      }
    }
  }
}

}  // namespace
}  // namespace atom
