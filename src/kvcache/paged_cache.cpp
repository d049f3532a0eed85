#include "kvcache/paged_cache.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
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

/// Throws Error unless all bytes of such a cache can be counted.
void require_countable(const KvShape& shape, KvFormat format, int64_t n_blocks, int64_t block_size) {
  assert(n_blocks >= 0 && block_size > 0 && shape.head_dim % 2 == 0);
  int64_t tokens = 0;
  int64_t bytes = 0;
  require(!__builtin_mul_overflow(n_blocks, block_size, &tokens) &&
              !__builtin_mul_overflow(tokens, kv_bytes_per_token(shape, format), &bytes),
          "no memory for a KV cache of {} blocks of {} tokens: more than 2^63 bytes", n_blocks, block_size);
}

/// Copies the `count` elements of block `from` to block `to`.
template <class T>
void copy_within(Buffer<T>& buffer, int32_t from, int32_t to, int64_t count) {
  if (buffer.empty()) return;
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  T* target = buffer.data() + to * count;
  const T* source = buffer.data() + from * count;
  if (Memory* memory = buffer.memory()) {
    memory->copy(target, source, bytes);
  } else {
    std::memcpy(target, source, bytes);
  }
}

}  // namespace

int64_t kv_bytes_per_token(const KvShape& shape, KvFormat format) {
  const int64_t per_head = 2 * shape.head_dim * bits_of(format) / 8 + param_bytes(format);
  return shape.n_layers * shape.n_kv_heads * per_head;
}

double kv_capacity_vs_f16(const KvShape& shape, KvFormat format) {
  return static_cast<double>(kv_bytes_per_token(shape, KvFormat::f16)) /
         static_cast<double>(kv_bytes_per_token(shape, format));
}

KvFormat parse_kv_format(std::string_view name) {
  for (const KvFormat format : kFormats) {
    if (name == name_of(format)) return format;
  }
  throw UsageError(fmt::format("unknown KV cache format '{}' (f32, f16, int8, int4)", printable(name)));
}

std::vector<PagedKvCache::Layer> PagedKvCache::make_layers(const KvShape& shape, KvFormat format,
                                                           int64_t n_blocks, int64_t block_size,
                                                           Memory* memory) {
  require_countable(shape, format, n_blocks, block_size);
  const int64_t rows = n_blocks * block_size * shape.n_kv_heads;
  const int64_t row_bytes = shape.head_dim * bits_of(format) / 8;
  std::vector<Layer> layers;
  for (int64_t i = 0; i < shape.n_layers; ++i) {
    Layer& layer = layers.emplace_back();
    layer.keys = Buffer<std::byte>(static_cast<size_t>(rows * row_bytes), memory);
    layer.values = Buffer<std::byte>(static_cast<size_t>(rows * row_bytes), memory);
    if (is_quantized(format)) {
      layer.key_params = Buffer<uint16_t>(static_cast<size_t>(rows * 2), memory);
      layer.value_params = Buffer<uint16_t>(static_cast<size_t>(rows * 2), memory);
    }
  }
  return layers;
}

PagedKvCache::PagedKvCache(const KvShape& shape, KvFormat format, int64_t n_blocks, int64_t block_size,
                           Memory* memory, bool prefix_caching) try
    : shape_(shape),
      format_(format),
      layers_(make_layers(shape, format, n_blocks, block_size, memory)),
      pool_(n_blocks, block_size, prefix_caching) {
} catch (const std::bad_alloc& error) {
  const auto* on_device = dynamic_cast<const OutOfDeviceMemory*>(&error);
  fail("no memory for a KV cache of {} tokens ({} bytes in {}){}{}", n_blocks * block_size,
       n_blocks * block_size * kv_bytes_per_token(shape, format), name_of(format),
       on_device != nullptr ? ": " : "", on_device != nullptr ? on_device->what() : "");
}

int64_t PagedKvCache::bytes() const {
  return n_blocks() * block_size() * kv_bytes_per_token(shape_, format_);
}

KvLayerView PagedKvCache::layer(int64_t index) {
  Layer& layer = layers_[static_cast<size_t>(index)];
  KvLayerView view;
  view.format = format_;
  view.n_blocks = n_blocks();
  view.block_size = block_size();
  view.n_kv_heads = shape_.n_kv_heads;
  view.head_dim = shape_.head_dim;
  view.keys = layer.keys.data();
  view.values = layer.values.data();
  view.key_params = layer.key_params.data();
  view.value_params = layer.value_params.data();
  return view;
}

void PagedKvCache::copy_block(int32_t from, int32_t to) {
  const int64_t rows = block_size() * shape_.n_kv_heads;
  const int64_t row_bytes = shape_.head_dim * bits_of(format_) / 8;
  for (Layer& layer : layers_) {
    copy_within(layer.keys, from, to, rows * row_bytes);
    copy_within(layer.values, from, to, rows * row_bytes);
    copy_within(layer.key_params, from, to, rows * 2);
    copy_within(layer.value_params, from, to, rows * 2);
  }
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : cache_(other.cache_),
      blocks_(std::move(other.blocks_)),
      length_(std::exchange(other.length_, 0)),
      indexed_(std::exchange(other.indexed_, 0)) {
  other.blocks_.clear();
}

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  assert(cache_ == other.cache_);
  std::swap(blocks_, other.blocks_);
  std::swap(length_, other.length_);
  std::swap(indexed_, other.indexed_);
  return *this;
}

bool BlockTable::copies_on_write() const {
  return length_ % cache_->block_size() != 0 && cache_->pool().references(blocks_.back()) > 1;
}

int64_t BlockTable::blocks_for(int64_t count) const {
  assert(count >= 0);
  if (count == 0) return 0;
  const int64_t block_size = cache_->block_size();
  const int64_t blocks = (length_ + count + block_size - 1) / block_size;
  return blocks - static_cast<int64_t>(blocks_.size()) + (copies_on_write() ? 1 : 0);
}

void BlockTable::append(int64_t count, std::vector<int64_t>& slots) {
  if (count == 0) return;
  BlockPool& pool = cache_->pool();
  const int64_t block_size = pool.block_size();
  const int64_t needed = blocks_for(count);
  require(needed <= pool.free_blocks(),
          "the KV cache is full: {} blocks of {} tokens are free, {} are needed", pool.free_blocks(),
          block_size, needed);
  if (copies_on_write()) {
    const int32_t copy = pool.allocate();
    cache_->copy_block(blocks_.back(), copy);
    pool.release(blocks_.back());
    blocks_.back() = copy;
  } else if (length_ % block_size != 0) {
    pool.forget(blocks_.back());
  }
  for (int64_t i = 0; i < count; ++i, ++length_) {
    const int64_t offset = length_ % block_size;
    if (offset == 0) blocks_.push_back(pool.allocate());
    slots.push_back(blocks_.back() * block_size + offset);
  }
}

void BlockTable::truncate(int64_t length) {
  assert(length >= 0 && length <= length_);
  const int64_t block_size = cache_->block_size();
  const auto keep = static_cast<size_t>((length + block_size - 1) / block_size);
  // From the end, so that the cache evicts tails before what leads to them.
  while (blocks_.size() > keep) {
    cache_->pool().release(blocks_.back());
    blocks_.pop_back();
  }
  length_ = length;
  // A block that is cut short stays in the index until it is written to, but is not this table's to go on
  // from.
  indexed_ = std::min(indexed_, length / block_size);
}

BlockTable BlockTable::fork() const {
  BlockTable table(*cache_);
  table.blocks_ = blocks_;
  for (const int32_t block : blocks_) cache_->pool().retain(block);
  table.length_ = length_;
  table.indexed_ = indexed_;
  return table;
}

int64_t BlockTable::take_prefix(std::span<const int32_t> tokens, int64_t most_tokens) {
  assert(length_ == 0);
  blocks_ = cache_->pool().match(tokens, most_tokens).blocks;
  indexed_ = static_cast<int64_t>(blocks_.size());
  length_ = indexed_ * cache_->block_size();
  return length_;
}

void BlockTable::index(std::span<const int32_t> tokens) {
  BlockPool& pool = cache_->pool();
  const int64_t block_size = pool.block_size();
  const int64_t whole = std::min(length_, static_cast<int64_t>(tokens.size())) / block_size;
  for (; indexed_ < whole; ++indexed_) {
    const auto i = static_cast<size_t>(indexed_);
    const PrefixNode previous = i == 0 ? kRootPrefix : pool.node(blocks_[i - 1]);
    const PrefixNode node =
        pool.insert(previous, blocks_[i],
                    tokens.subspan(i * static_cast<size_t>(block_size), static_cast<size_t>(block_size)));
    if (node == kNoPrefix) return;
    if (node == pool.node(blocks_[i])) continue;
    pool.release(std::exchange(blocks_[i], pool.take(node)));
  }
}

}  // namespace atom
