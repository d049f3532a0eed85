#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/kv_view.h"
#include "kvcache/block_pool.h"
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

/// How many times the tokens that an FP16 cache holds one of `format` holds in the same bytes.
double kv_capacity_vs_f16(const KvShape& shape, KvFormat format);

/// The inverse of name_of(KvFormat). Throws UsageError for another word.
KvFormat parse_kv_format(std::string_view name);

/// A paged KV cache: equal blocks of `block_size` tokens, each block in every layer, and the pool that says
/// who owns which of them and what they hold. Which sequence a block belongs to is the caller's table.
class PagedKvCache {
 public:
  /// The keys and values lie in `memory`; null: the host's. Throws Error when it can't be had.
  PagedKvCache(const KvShape& shape, KvFormat format, int64_t n_blocks, int64_t block_size = 16,
               Memory* memory = nullptr, bool prefix_caching = true);

  KvFormat format() const { return format_; }
  const KvShape& shape() const { return shape_; }
  int64_t block_size() const { return pool_.block_size(); }
  int64_t n_blocks() const { return pool_.n_blocks(); }
  int64_t free_blocks() const { return pool_.free_blocks(); }
  /// Bytes of keys, values and their parameters in all layers.
  int64_t bytes() const;

  KvLayerView layer(int64_t layer);

  BlockPool& pool() { return pool_; }
  const BlockPool& pool() const { return pool_; }

  /// Copies what block `from` holds to `to`, in every layer, in order with the device's work.
  void copy_block(int32_t from, int32_t to);

 private:
  struct Layer {
    Buffer<std::byte> keys;
    Buffer<std::byte> values;
    Buffer<uint16_t> key_params;
    Buffer<uint16_t> value_params;
  };
  static std::vector<Layer> make_layers(const KvShape& shape, KvFormat format, int64_t n_blocks,
                                        int64_t block_size, Memory* memory);

  KvShape shape_;
  KvFormat format_;
  // Before the pool: what does not fit should fail at the allocation that is far too large.
  std::vector<Layer> layers_;
  BlockPool pool_;
};

/// The blocks of one sequence, in order of position, and how many of its tokens they hold. Blocks may be
/// shared with other tables; one that is shared or indexed is copied, or forgotten by the index, before other
/// tokens are written to it (copy on write).
class BlockTable {
 public:
  explicit BlockTable(PagedKvCache& cache) : cache_(&cache) {}
  ~BlockTable() { clear(); }
  BlockTable(BlockTable&& other) noexcept;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  /// Both tables are of the same cache.
  BlockTable& operator=(BlockTable&& other) noexcept;

  /// Makes room for `count` tokens more and writes the slot of each (block * block_size + offset) to `slots`.
  /// Throws Error and changes nothing when the cache has too few free blocks.
  void append(int64_t count, std::vector<int64_t>& slots);
  /// How many free blocks append(count) takes.
  int64_t blocks_for(int64_t count) const;
  /// Forgets the tokens from position `length` on and gives back the blocks that become empty.
  void truncate(int64_t length);
  void clear() { truncate(0); }

  /// A table of the same tokens, which shares the blocks.
  BlockTable fork() const;

  /// Takes the longest beginning of `tokens` that the prefix index knows, at most `most_tokens` of it. The
  /// table must be empty. Returns how many tokens the table holds now.
  int64_t take_prefix(std::span<const int32_t> tokens, int64_t most_tokens);
  /// Indexes the whole blocks of the table, which hold (the beginning of) `tokens` and have been computed. A
  /// block of which the index knows a twin gives way to it, so that what is the same is kept once; not to be
  /// called while a step reads the table.
  void index(std::span<const int32_t> tokens);

  int64_t length() const { return length_; }
  /// Whether the next token would be written to a block that others own too, and costs a copy of it.
  bool copies_on_write() const;
  const int32_t* blocks() const { return blocks_.data(); }
  std::span<const int32_t> block_list() const { return blocks_; }

 private:
  PagedKvCache* cache_;
  std::vector<int32_t> blocks_;
  int64_t length_ = 0;
  /// The index knows the first `indexed_` blocks, and nobody forgets them while the table owns them.
  int64_t indexed_ = 0;
};

}  // namespace atom
