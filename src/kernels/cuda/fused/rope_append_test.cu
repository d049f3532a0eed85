#include <bit>

#include "kernels/cuda/fused/fused_testing.h"
#include "kernels/rope_test_support.h"

namespace atom::cuda {
namespace {

using namespace fused_test;

/// A cache's bytes on the host and on the device; NaN halves count as equal.
void expect_same_cache(const TestCache& expected, const std::vector<std::byte>& keys,
                       const std::vector<std::byte>& values, const std::vector<uint16_t>& key_params,
                       const std::vector<uint16_t>& value_params) {
  const auto same = [&](const Buffer<std::byte>& a, const std::vector<std::byte>& b, const char* what) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      if (a.data()[i] == b[i]) continue;
      if (expected.view.format == KvFormat::f16) {
        uint16_t first = 0, second = 0;
        std::memcpy(&first, a.data() + i / 2 * 2, 2);
        std::memcpy(&second, b.data() + i / 2 * 2, 2);
        if ((first & 0x7FFF) > 0x7C00 && (second & 0x7FFF) > 0x7C00) continue;
      }
      if (expected.view.format == KvFormat::f32) {
        float first = 0, second = 0;
        std::memcpy(&first, a.data() + i / 4 * 4, 4);
        std::memcpy(&second, b.data() + i / 4 * 4, 4);
        if (std::isnan(first) && std::isnan(second)) continue;
      }
      FAIL() << what << " byte " << i << ": " << static_cast<int>(b[i]) << ", expected "
             << static_cast<int>(a.data()[i]);
    }
  };
  same(expected.keys, keys, "keys");
  same(expected.values, values, "values");
  EXPECT_TRUE(std::equal(key_params.begin(), key_params.end(), expected.key_params.begin()));
  EXPECT_TRUE(std::equal(value_params.begin(), value_params.end(), expected.value_params.begin()));
}

void test_rope(Random& random, KvFormat format, int64_t head_dim, bool rotate, Kind kind, int64_t tokens) {
  const int64_t n_heads = 6, n_kv_heads = 3, n_blocks = tokens / 8 + 2, block_size = 16;
  RopeBatch batch(random, tokens, n_heads, n_kv_heads, head_dim, kind);
  batch.slots = random_slots(random, tokens, n_blocks * block_size);
  for (int64_t& slot : batch.slots) {
    if (random.below(5) == 0) slot = -1;
  }
  TestCache cache(format, n_blocks, block_size, n_kv_heads, head_dim);
  DeviceArray<std::byte> keys(cache.keys.data(), cache.keys.size());
  DeviceArray<std::byte> values(cache.values.data(), cache.values.size());
  DeviceArray<uint16_t> key_params(cache.key_params.data(), cache.key_params.size());
  DeviceArray<uint16_t> value_params(cache.value_params.data(), cache.value_params.size());
  DeviceArray<float> q(to_vector(batch.q)), k(to_vector(batch.k)), v(to_vector(batch.v));
  DeviceArray<float> cos(to_vector(batch.cos)), sin(to_vector(batch.sin));
  DeviceArray<int32_t> positions(batch.positions);
  DeviceArray<int64_t> slots(batch.slots);
  KvLayerView view = cache.view;
  view.keys = keys.data();
  view.values = values.data();
  view.key_params = is_quantized(format) ? key_params.data() : nullptr;
  view.value_params = is_quantized(format) ? value_params.data() : nullptr;
  rope_append({tokens, n_heads, q.data(), n_heads * head_dim, k.data(), n_kv_heads * head_dim, v.data(),
               n_kv_heads * head_dim, positions.data(), slots.data(), cos.data(), sin.data(), rotate, view},
              nullptr);
  run_reference(batch.op(rotate, cache.view));
  EXPECT_TRUE(same_floats(q.read().data(), batch.q.data(), tokens * n_heads * head_dim));
  expect_same_cache(cache, keys.read(), values.read(), key_params.read(), value_params.read());
}

TEST(CudaRopeAppend, EqualsTheReference) {
  ATOM_NEEDS_GPU();
  Random random(5);
  for (const KvFormat format : {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    for (const int64_t head_dim : {2, 4, 16, 32, 64, 80, 96, 128, 256}) {
      for (const bool rotate : {false, true}) {
        if (rotate && !std::has_single_bit(static_cast<uint64_t>(head_dim))) continue;
        for (const Kind kind : kKinds) {
          SCOPED_TRACE(testing::Message() << atom::name_of(format) << ", head_dim " << head_dim << ", rotate "
                                          << rotate << ", kind " << static_cast<int>(kind));
          test_rope(random, format, head_dim, rotate, kind, kind == Kind::normal ? 97 : 5);
        }
      }
    }
  }
}

}  // namespace
}  // namespace atom::cuda
