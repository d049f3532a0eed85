#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/kv_view.h"
#include "tensor/tensor.h"

namespace atom {

/// What a model's cache holds for a token: the same in every layer.
struct KvShape {
  int64_t n_layers = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
};

/// Bytes that one token takes in all layers, scales and minima included.
int64_t kv_bytes_per_token(const KvShape& shape, KvFormat format);

/// The inverse of name_of(KvFormat). Throws UsageError for another word.
KvFormat parse_kv_format(std::string_view name);

/// A paged KV cache: a pool of equal blocks of `block_size` tokens, each block in every layer. Blocks are
/// handed out and taken back one by one; which sequence a block belongs to is the caller's table.
class PagedKvCache {
 public:
  /// The keys and values lie in `memory`; null: the host's. Throws Error when it can't be had.
  PagedKvCache(const KvShape& shape, KvFormat format, int64_t n_blocks, int64_t block_size = 16,
               Memory* memory = nullptr);

  KvFormat format() const { return format_; }
  const KvShape& shape() const { return shape_; }
  int64_t block_size() const { return block_size_; }
  int64_t n_blocks() const { return n_blocks_; }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  /// Bytes of keys, values and their parameters in all layers.
  int64_t bytes() const;

  KvLayerView layer(int64_t layer);

  /// Takes a free block. Throws Error when there is none.
  int32_t allocate();
  /// Gives a block back. It must be one that allocate() returned and that was not given back since.
  void release(int32_t block);

 private:
  struct Layer {
    Buffer<std::byte> keys;
    Buffer<std::byte> values;
    Buffer<uint16_t> key_params;
    Buffer<uint16_t> value_params;
  };

  KvShape shape_;
  KvFormat format_;
  int64_t n_blocks_;
  int64_t block_size_;
  std::vector<Layer> layers_;
  std::vector<int32_t> free_;
  std::vector<bool> used_;
};

/// The blocks of one sequence, in order of position, and how many of its tokens they hold.
class BlockTable {
 public:
  explicit BlockTable(PagedKvCache& cache) : cache_(&cache) {}
  ~BlockTable() { clear(); }
  BlockTable(BlockTable&& other) noexcept;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  BlockTable& operator=(BlockTable&&) = delete;

  /// Makes room for `count` tokens more and writes the slot of each (block * block_size + offset) to `slots`.
  /// Throws Error and changes nothing when the cache has too few free blocks.
  void append(int64_t count, std::vector<int64_t>& slots);
  /// Forgets the tokens from position `length` on and gives back the blocks that become empty.
  void truncate(int64_t length);
  void clear() { truncate(0); }

  int64_t length() const { return length_; }
  const int32_t* blocks() const { return blocks_.data(); }

 private:
  PagedKvCache* cache_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
};

}  // namespace atom
