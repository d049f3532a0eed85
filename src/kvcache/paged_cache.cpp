#include "kvcache/paged_cache.h"

#include <array>
#include <cassert>
#include <new>
#include <utility>

#include "base/error.h"
#include "tensor/memory.h"

namespace atom {
namespace {

constexpr std::array kFormats = {KvFormat::f32, KvFormat::f16, KvFormat::int8, KvFormat::int4};

/// Keys and values both have a scale and a minimum of two bytes each.
int64_t param_bytes(KvFormat format) {
  return is_quantized(format) ? 2 * 2 * 2 : 0;
}

}  // namespace

int64_t kv_bytes_per_token(const KvShape& shape, KvFormat format) {
  const int64_t per_head = 2 * shape.head_dim * bits_of(format) / 8 + param_bytes(format);
  return shape.n_layers * shape.n_kv_heads * per_head;
}

KvFormat parse_kv_format(std::string_view name) {
  for (const KvFormat format : kFormats) {
    if (name == name_of(format)) return format;
  }
  throw UsageError(fmt::format("unknown KV cache format '{}' (f32, f16, int8, int4)", printable(name)));
}

PagedKvCache::PagedKvCache(const KvShape& shape, KvFormat format, int64_t n_blocks, int64_t block_size,
                           Memory* memory)
    : shape_(shape), format_(format), n_blocks_(n_blocks), block_size_(block_size) {
  assert(n_blocks >= 0 && block_size > 0 && shape.head_dim % 2 == 0);
  const int64_t rows = n_blocks * block_size * shape.n_kv_heads;
  const int64_t row_bytes = shape.head_dim * bits_of(format) / 8;
  try {
    for (int64_t i = 0; i < shape.n_layers; ++i) {
      Layer layer;
      layer.keys = Buffer<std::byte>(static_cast<size_t>(rows * row_bytes), memory);
      layer.values = Buffer<std::byte>(static_cast<size_t>(rows * row_bytes), memory);
      if (is_quantized(format)) {
        layer.key_params = Buffer<uint16_t>(static_cast<size_t>(rows * 2), memory);
        layer.value_params = Buffer<uint16_t>(static_cast<size_t>(rows * 2), memory);
      }
      layers_.push_back(std::move(layer));
    }
  } catch (const std::bad_alloc& error) {
    const auto* on_device = dynamic_cast<const OutOfDeviceMemory*>(&error);
    fail("no memory for a KV cache of {} tokens ({} bytes in {}){}{}", n_blocks * block_size,
         n_blocks * block_size * kv_bytes_per_token(shape, format), name_of(format),
         on_device != nullptr ? ": " : "", on_device != nullptr ? on_device->what() : "");
  }
  used_.assign(static_cast<size_t>(n_blocks), false);
  // Handed out from the back, so the first block is 0.
  for (int64_t block = n_blocks; block-- > 0;) free_.push_back(static_cast<int32_t>(block));
}

int64_t PagedKvCache::bytes() const {
  return n_blocks_ * block_size_ * kv_bytes_per_token(shape_, format_);
}

KvLayerView PagedKvCache::layer(int64_t index) {
  Layer& layer = layers_[static_cast<size_t>(index)];
  KvLayerView view;
  view.format = format_;
  view.n_blocks = n_blocks_;
  view.block_size = block_size_;
  view.n_kv_heads = shape_.n_kv_heads;
  view.head_dim = shape_.head_dim;
  view.keys = layer.keys.data();
  view.values = layer.values.data();
  view.key_params = layer.key_params.data();
  view.value_params = layer.value_params.data();
  return view;
}

int32_t PagedKvCache::allocate() {
  require(!free_.empty(), "the KV cache is full: all {} blocks of {} tokens are in use", n_blocks_,
          block_size_);
  const int32_t block = free_.back();
  free_.pop_back();
  used_[static_cast<size_t>(block)] = true;
  return block;
}

void PagedKvCache::release(int32_t block) {
  assert(block >= 0 && block < n_blocks_ && used_[static_cast<size_t>(block)]);
  used_[static_cast<size_t>(block)] = false;
  free_.push_back(block);
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : cache_(other.cache_), blocks_(std::move(other.blocks_)), length_(std::exchange(other.length_, 0)) {
  other.blocks_.clear();
}

void BlockTable::append(int64_t count, std::vector<int64_t>& slots) {
  assert(count >= 0);
  const int64_t block_size = cache_->block_size();
  const int64_t needed =
      (length_ + count + block_size - 1) / block_size - static_cast<int64_t>(blocks_.size());
  require(needed <= cache_->free_blocks(),
          "the KV cache is full: {} blocks of {} tokens are free, {} are needed", cache_->free_blocks(),
          block_size, needed);
  for (int64_t i = 0; i < needed; ++i) blocks_.push_back(cache_->allocate());
  for (int64_t i = 0; i < count; ++i, ++length_) {
    slots.push_back(blocks_[static_cast<size_t>(length_ / block_size)] * block_size + length_ % block_size);
  }
}

void BlockTable::truncate(int64_t length) {
  assert(length >= 0 && length <= length_);
  const int64_t block_size = cache_->block_size();
  const auto keep = static_cast<size_t>((length + block_size - 1) / block_size);
  while (blocks_.size() > keep) {
    cache_->release(blocks_.back());
    blocks_.pop_back();
  }
  length_ = length;
}

}  // namespace atom
