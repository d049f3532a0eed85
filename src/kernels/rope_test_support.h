#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/fused_test_support.h"
#include "tensor/half.h"

/// A paged cache that owns its memory, and a batch to append to it.
namespace atom::fused_test {

struct TestCache {
  TestCache(KvFormat format, int64_t n_blocks, int64_t block_size, int64_t n_kv_heads, int64_t head_dim) {
    view = {format, n_blocks, block_size, n_kv_heads, head_dim, nullptr, nullptr, nullptr, nullptr};
    const auto rows = static_cast<size_t>(n_blocks * n_kv_heads * block_size);
    const size_t bytes = rows * static_cast<size_t>(view.row_bytes());
    keys = Buffer<std::byte>(bytes);
    values = Buffer<std::byte>(bytes);
    // What must not be written is recognized by this pattern.
    std::fill(keys.begin(), keys.end(), std::byte{0xA5});
    std::fill(values.begin(), values.end(), std::byte{0xA5});
    view.keys = keys.data();
    view.values = values.data();
    if (!is_quantized(format)) return;
    key_params = Buffer<uint16_t>(2 * rows);
    value_params = Buffer<uint16_t>(2 * rows);
    view.key_params = key_params.data();
    view.value_params = value_params.data();
  }

  /// The stored row widened: keys or values of (slot, head).
  std::vector<double> read(bool key, int64_t slot, int64_t head) const {
    const int64_t row = view.row_index(slot / view.block_size, head, slot % view.block_size);
    const std::byte* data = (key ? view.keys : view.values) + row * view.row_bytes();
    const uint16_t* params = key ? view.key_params : view.value_params;
    std::vector<double> out;
    for (int64_t i = 0; i < view.head_dim; ++i) {
      float f = 0;
      uint16_t h = 0;
      switch (view.format) {
        case KvFormat::f32:
          std::memcpy(&f, data + 4 * i, 4);
          out.push_back(f);
          break;
        case KvFormat::f16:
          std::memcpy(&h, data + 2 * i, 2);
          out.push_back(half_to_float(h));
          break;
        default: {
          const int byte = static_cast<int>(data[view.format == KvFormat::int8 ? i : i / 2]);
          const int q = view.format == KvFormat::int8 ? byte : (i % 2 == 0 ? byte & 15 : byte >> 4);
          out.push_back(q * static_cast<double>(half_to_float(params[2 * row])) +
                        half_to_float(params[2 * row + 1]));
        }
      }
    }
    return out;
  }

  KvLayerView view;
  Buffer<std::byte> keys, values;
  Buffer<uint16_t> key_params, value_params;
};

struct RopeBatch {
  RopeBatch(Random& random, int64_t tokens, int64_t n_heads, int64_t n_kv_heads, int64_t head_dim,
            Kind kind = Kind::normal)
      : q(random_matrix(random, tokens, n_heads * head_dim, kind)),
        k(random_matrix(random, tokens, n_kv_heads * head_dim, kind)),
        v(random_matrix(random, tokens, n_kv_heads * head_dim, kind)),
        cos(kPositions, head_dim / 2),
        sin(kPositions, head_dim / 2) {
    for (int64_t p = 0; p < kPositions; ++p) {
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        const double angle =
            p * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        cos(p, i) = static_cast<float>(std::cos(angle));
        sin(p, i) = static_cast<float>(std::sin(angle));
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      positions.push_back(static_cast<int32_t>(random.below(kPositions)));
      slots.push_back(-1);
    }
  }
  RopeBatch(const RopeBatch& other)
      : q(copy(other.q)),
        k(copy(other.k)),
        v(copy(other.v)),
        cos(copy(other.cos)),
        sin(copy(other.sin)),
        positions(other.positions),
        slots(other.slots) {}

  RopeAppend op(bool rotate, const KvLayerView& cache) {
    return {q.view(), k.view(), std::as_const(v).view(), positions, slots, cos.data(), sin.data(),
            rotate,   cache};
  }

  static Matrix<float> copy(const Matrix<float>& from) {
    Matrix<float> to(from.rows(), from.cols());
    std::copy(from.span().begin(), from.span().end(), to.span().begin());
    return to;
  }

  static constexpr int64_t kPositions = 600;
  Matrix<float> q, k, v, cos, sin;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
};

/// `count` different slots of `capacity` in random order.
inline std::vector<int64_t> random_slots(Random& random, int64_t count, int64_t capacity) {
  const auto order = random_permutation(random, capacity);
  return {order.begin(), order.begin() + count};
}

}  // namespace atom::fused_test
