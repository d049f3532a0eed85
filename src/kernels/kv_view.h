#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/host_device.h"

namespace atom {

/// Storage of keys and values. int4 and int8 are asymmetric per token and head: x = q * scale + minimum, q in
/// [0, 15] or [0, 255], scale and minimum in fp16 (paper section 4.4).
enum class KvFormat : uint8_t { f32, f16, int8, int4 };

ATOM_HOST_DEVICE constexpr int bits_of(KvFormat format) {
  switch (format) {
    case KvFormat::f32:
      return 32;
    case KvFormat::f16:
      return 16;
    case KvFormat::int8:
      return 8;
    case KvFormat::int4:
      return 4;
  }
  return 0;
}

constexpr std::string_view name_of(KvFormat format) {
  switch (format) {
    case KvFormat::f32:
      return "f32";
    case KvFormat::f16:
      return "f16";
    case KvFormat::int8:
      return "int8";
    case KvFormat::int4:
      return "int4";
  }
  return "?";
}

ATOM_HOST_DEVICE constexpr bool is_quantized(KvFormat format) {
  return format == KvFormat::int8 || format == KvFormat::int4;
}

/// One layer of a paged KV cache, not owned.
///
/// keys, values             [n_blocks, n_kv_heads, block_size] rows of head_dim elements (row_bytes() each);
/// int4
///                          keeps the even channel in the low nibble.
/// key_params, value_params [n_blocks, n_kv_heads, block_size, 2] fp16 bits: scale, minimum. Null unless
/// quantized.
struct KvLayerView {
  KvFormat format = KvFormat::f16;
  int64_t n_blocks = 0;
  int64_t block_size = 16;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
  uint16_t* key_params = nullptr;
  uint16_t* value_params = nullptr;

  ATOM_HOST_DEVICE int64_t row_bytes() const { return head_dim * bits_of(format) / 8; }
  /// Index of the row of (block, head, offset in the block).
  ATOM_HOST_DEVICE int64_t row_index(int64_t block, int64_t head, int64_t offset) const {
    return (block * n_kv_heads + head) * block_size + offset;
  }
};

}  // namespace atom
