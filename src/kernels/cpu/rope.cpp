#include "kernels/cpu/rope.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

#include "kernels/cpu/fused_tokens.h"

namespace atom::cpu {
namespace {

void store_row(const RopeRows& rows, const float* x, int64_t n, KvFormat format, std::byte* row,
               uint16_t* params) {
  switch (format) {
    case KvFormat::f32:
      std::memcpy(row, x, static_cast<size_t>(n) * sizeof(float));
      return;
    case KvFormat::f16:
      rows.store_half(x, n, reinterpret_cast<uint16_t*>(row));
      return;
    case KvFormat::int8:
      rows.store_int8(x, n, reinterpret_cast<uint8_t*>(row), params);
      return;
    case KvFormat::int4:
      rows.store_int4(x, n, reinterpret_cast<uint8_t*>(row), params);
      return;
  }
}

/// Stores the heads of one token, x [n_kv_heads * head_dim], at (block, offset).
void store_heads(const RopeRows& rows, const KvLayerView& cache, const float* x, int64_t block,
                 int64_t offset, std::byte* data, uint16_t* params) {
  for (int64_t h = 0; h < cache.n_kv_heads; ++h) {
    const int64_t row = cache.row_index(block, h, offset);
    store_row(rows, x + h * cache.head_dim, cache.head_dim, cache.format, data + row * cache.row_bytes(),
              is_quantized(cache.format) ? params + 2 * row : nullptr);
  }
}

}  // namespace

bool supports_rope_append(const RopeRows& rows, const RopeAppend& op) {
  return op.cache.head_dim > 0 && op.cache.head_dim % rows.head_dim_multiple == 0;
}

void rope_append(const RopeRows& rows, const DeviceContext& device, const RopeAppend& op) {
  const KvLayerView& cache = op.cache;
  const int64_t head_dim = cache.head_dim;
  const int64_t half = head_dim / 2;
  const int64_t n_heads = op.q.cols / head_dim;
  const int64_t tokens = op.q.rows;
  assert(op.q.cols == n_heads * head_dim);
  assert(op.k.cols == cache.n_kv_heads * head_dim && op.v.cols == op.k.cols);
  assert(op.k.rows == tokens && op.v.rows == tokens);
  assert(op.positions.size() == static_cast<size_t>(tokens) &&
         op.slots.size() == static_cast<size_t>(tokens));
  assert(!op.rotate || std::has_single_bit(static_cast<uint64_t>(head_dim)));
  const auto norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));

  for_each_token_range(device, tokens, op.q.cols + 2 * op.k.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = op.positions[static_cast<size_t>(t)];
      const float* cos = op.cos + position * half;
      const float* sin = op.sin + position * half;
      rows.rotate(op.q.row(t), n_heads, head_dim, cos, sin);
      rows.rotate(op.k.row(t), cache.n_kv_heads, head_dim, cos, sin);
      if (op.rotate) {
        rows.hadamard(op.q.row(t), n_heads, head_dim, norm);
        rows.hadamard(op.k.row(t), cache.n_kv_heads, head_dim, norm);
      }
      const int64_t slot = op.slots[static_cast<size_t>(t)];
      if (slot < 0) continue;
      assert(slot < cache.n_blocks * cache.block_size);
      const int64_t block = slot / cache.block_size;
      const int64_t offset = slot % cache.block_size;
      store_heads(rows, cache, op.k.row(t), block, offset, cache.keys, cache.key_params);
      store_heads(rows, cache, op.v.row(t), block, offset, cache.values, cache.value_params);
    }
  });
}

}  // namespace atom::cpu
