#include "kernels/reference/rope.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/fused_tokens.h"
#include "kernels/numerics.h"
#include "tensor/half.h"

namespace atom::reference {
namespace {

void rope_head(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const auto pair = numerics::rotate(x[i], x[i + half], cos[i], sin[i]);
    x[i] = pair.first;
    x[i + half] = pair.second;
  }
}

void hadamard_head(float* x, int64_t n) {
  for (int64_t distance = 1; distance < n; distance *= 2) {
    for (int64_t block = 0; block < n; block += 2 * distance) {
      for (int64_t i = block; i < block + distance; ++i) {
        const float a = x[i];
        const float b = x[i + distance];
        x[i] = a + b;
        x[i + distance] = a - b;
      }
    }
  }
  const auto norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  for (int64_t i = 0; i < n; ++i) x[i] *= norm;
}

/// Quantizes a row of n elements: `levels` is 255 (a byte each) or 15 (a nibble each, even channel low).
void store_quantized(const float* x, int64_t n, int levels, std::byte* row, uint16_t* params) {
  float min = std::numeric_limits<float>::infinity();
  float max = -min;
  for (int64_t i = 0; i < n; ++i) {
    min = x[i] < min ? x[i] : min;
    max = x[i] > max ? x[i] : max;
  }
  const auto top = static_cast<float>(levels);
  const numerics::KvParams p = numerics::kv_params(min, max, top);
  params[0] = float_to_half(p.scale);
  params[1] = float_to_half(p.minimum);
  const float inverse = numerics::inverse_scale(p.scale);
  const auto q = [&](int64_t i) {
    return static_cast<uint8_t>(numerics::quantize(x[i] - p.minimum, inverse, 0.0f, top));
  };
  if (levels == 255) {
    for (int64_t i = 0; i < n; ++i) row[i] = std::byte{q(i)};
  } else {
    for (int64_t i = 0; i < n; i += 2) row[i / 2] = static_cast<std::byte>(q(i) | (q(i + 1) << 4));
  }
}

void store_row(const float* x, int64_t n, KvFormat format, std::byte* row, uint16_t* params) {
  switch (format) {
    case KvFormat::f32:
      std::memcpy(row, x, static_cast<size_t>(n) * sizeof(float));
      return;
    case KvFormat::f16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = float_to_half(numerics::finite_half(x[i]));
        std::memcpy(row + 2 * i, &bits, sizeof(bits));
      }
      return;
    case KvFormat::int8:
      store_quantized(x, n, 255, row, params);
      return;
    case KvFormat::int4:
      store_quantized(x, n, 15, row, params);
      return;
  }
}

}  // namespace

void rope_append(const DeviceContext& device, const RopeAppend& op) {
  const KvLayerView& cache = op.cache;
  const int64_t head_dim = cache.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t n_heads = op.q.cols / head_dim;
  const int64_t tokens = op.q.rows;
  assert(head_dim % 2 == 0 && op.q.cols == n_heads * head_dim);
  assert(op.k.cols == cache.n_kv_heads * head_dim && op.v.cols == op.k.cols);
  assert(op.k.rows == tokens && op.v.rows == tokens);
  assert(op.positions.size() == static_cast<size_t>(tokens) &&
         op.slots.size() == static_cast<size_t>(tokens));
  assert(!op.rotate || std::has_single_bit(static_cast<uint64_t>(head_dim)));

  const auto one_token = [&](int64_t t) {
    const int64_t position = op.positions[static_cast<size_t>(t)];
    const float* cos = op.cos + position * half;
    const float* sin = op.sin + position * half;
    const auto rotate_heads = [&](float* x, int64_t heads) {
      for (int64_t h = 0; h < heads; ++h) {
        rope_head(x + h * head_dim, cos, sin, half);
        if (op.rotate) hadamard_head(x + h * head_dim, head_dim);
      }
    };
    rotate_heads(op.q.row(t), n_heads);
    rotate_heads(op.k.row(t), cache.n_kv_heads);

    const int64_t slot = op.slots[static_cast<size_t>(t)];
    if (slot < 0) return;
    assert(slot < cache.n_blocks * cache.block_size);
    const int64_t block = slot / cache.block_size;
    const int64_t offset = slot % cache.block_size;
    for (int64_t h = 0; h < cache.n_kv_heads; ++h) {
      const int64_t row = cache.row_index(block, h, offset);
      const int64_t byte = row * cache.row_bytes();
      const bool quantized = is_quantized(cache.format);
      store_row(op.k.row(t) + h * head_dim, head_dim, cache.format, cache.keys + byte,
                quantized ? cache.key_params + 2 * row : nullptr);
      store_row(op.v.row(t) + h * head_dim, head_dim, cache.format, cache.values + byte,
                quantized ? cache.value_params + 2 * row : nullptr);
    }
  };
  for_each_token_range(device, tokens, op.q.cols + 2 * op.k.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) one_token(t);
  });
}

}  // namespace atom::reference
