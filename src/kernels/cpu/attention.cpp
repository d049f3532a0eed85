#include "kernels/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "kernels/reference/attention.h"

// Driver of the vectorized attention. The batch is cut into tiles (sequence, KV head, some tokens with all
// query heads of the KV head): every key and value is dequantized once a tile. A tile that is too large a
// share of the work, such as a single sequence that decodes at depth, is cut further into runs of key
// segments, whose states are merged, in the contract's order, by the worker that finishes the last of them.
// No cut changes a result. Heavy pieces start first.
namespace atom::cpu {
namespace {

using attention::Kernels;
using attention::Scratch;
using attention::State;
using attention::Tile;

static_assert(attention::kTile == kAttentionTile && attention::kSegment == kAttentionSegment &&
              attention::kSums == kAttentionSums);

/// Query values of a tile at most: queries and states then stay in a 512 KiB L2 cache.
constexpr int64_t kTileValues = 16384;
/// Dequantizing a key and its value costs about as much as this many query rows.
constexpr int64_t kDequantizeRows = 12;
/// Pieces per thread that suffice for balance.
constexpr int64_t kPiecesPerThread = 4;
constexpr int64_t kAlign = static_cast<int64_t>(kAlignment / sizeof(float));

struct Split {
  std::vector<State> states;
  std::atomic<int64_t> unfinished{0};
};

struct Piece {
  size_t tile;
  int64_t cost;
  /// Null: the whole tile.
  Split* split = nullptr;
  int64_t first_segment = 0;
  int64_t last_segment = 0;
};

int64_t rows_of(const Tile& tile) {
  return tile.n_tokens * tile.group;
}

/// Segments [first_segment, last_segment) have keys that rows of the tile see.
int64_t first_segment(const Tile& tile) {
  return std::max<int64_t>(tile.position + 1 - tile.window, 0) / kAttentionSegment;
}

int64_t last_segment(const Tile& tile) {
  return (tile.position + tile.n_tokens + kAttentionSegment - 1) / kAttentionSegment;
}

int64_t cost_of(const Tile& tile) {
  const int64_t keys = std::min(tile.position, tile.window) + tile.n_tokens;
  return (rows_of(tile) + kDequantizeRows) * keys;
}

/// Hands out aligned pieces of a buffer; with a null buffer it only counts.
class Arena {
 public:
  explicit Arena(float* data) : data_(data) {}

  float* take(int64_t count) {
    float* piece = data_ == nullptr ? nullptr : data_ + used_;
    used_ += (count + kAlign - 1) / kAlign * kAlign;
    return piece;
  }
  State take_state(int64_t rows, int64_t head_dim) {
    State state;
    state.maximum = take(rows);
    state.sums = take(rows * kAttentionSums);
    state.weighted = take(rows * head_dim);
    return state;
  }
  Scratch take_scratch(int64_t rows, int64_t head_dim) {
    Scratch scratch;
    scratch.q = take(rows * head_dim);
    scratch.keys = take(kAttentionTile * head_dim);
    scratch.values = take(kAttentionTile * head_dim);
    scratch.scores = take(attention::kBlockRows * kAttentionTile);
    scratch.key_scales = take(2 * kAttentionTile);
    scratch.value_scales = take(2 * kAttentionTile);
    scratch.total = take_state(rows, head_dim);
    scratch.segment = take_state(rows, head_dim);
    return scratch;
  }
  int64_t used() const { return used_; }

 private:
  float* data_;
  int64_t used_ = 0;
};

/// Uninitialized aligned memory: zeroing it would cost a decode step more than it should.
class Memory {
 public:
  explicit Memory(int64_t floats)
      : storage_(new float[static_cast<size_t>(floats + kAlign)]), data_(storage_.get()) {
    const auto misaligned = reinterpret_cast<uintptr_t>(data_) % kAlignment;
    if (misaligned != 0) data_ += (kAlignment - misaligned) / sizeof(float);
  }
  float* data() { return data_; }

 private:
  std::unique_ptr<float[]> storage_;
  float* data_;
};

std::vector<Tile> make_tiles(const Attention& op) {
  const KvLayerView& cache = op.cache;
  const int64_t group = op.n_heads / cache.n_kv_heads;
  const int64_t tokens = std::max<int64_t>(1, kTileValues / (group * cache.head_dim));
  std::vector<Tile> tiles;
  for (const SequenceSpan& sequence : op.sequences) {
    assert(sequence.n_rows <= sequence.context);
    for (int64_t first = 0; first < sequence.n_rows; first += tokens) {
      for (int64_t kv_head = 0; kv_head < cache.n_kv_heads; ++kv_head) {
        Tile tile;
        tile.q = op.q.row(sequence.first_row + first) + kv_head * group * cache.head_dim;
        tile.q_stride = op.q.stride;
        tile.out = op.out.row(sequence.first_row + first) + kv_head * group * cache.head_dim;
        tile.out_stride = op.out.stride;
        tile.n_tokens = std::min(tokens, sequence.n_rows - first);
        tile.group = group;
        tile.head_dim = cache.head_dim;
        tile.position = sequence.context - sequence.n_rows + first;
        tile.window = op.window > 0 ? op.window : sequence.context;
        tile.scale = op.scale;
        tile.format = cache.format;
        tile.keys = cache.keys;
        tile.values = cache.values;
        tile.key_params = cache.key_params;
        tile.value_params = cache.value_params;
        tile.blocks = sequence.blocks;
        tile.block_size = cache.block_size;
        tile.n_kv_heads = cache.n_kv_heads;
        tile.kv_head = kv_head;
        tiles.push_back(tile);
      }
    }
  }
  return tiles;
}

/// Pieces of all tiles, heaviest first; splits get one entry per tile that is cut (their states are not yet
/// allocated).
std::vector<Piece> make_pieces(const std::vector<Tile>& tiles, int64_t threads,
                               std::vector<std::unique_ptr<Split>>& splits) {
  int64_t total = 0;
  for (const Tile& tile : tiles) total += cost_of(tile);
  const int64_t target = total / (kPiecesPerThread * threads) + 1;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tiles.size(); ++i) {
    const int64_t cost = cost_of(tiles[i]);
    const int64_t first = first_segment(tiles[i]);
    const int64_t segments = last_segment(tiles[i]) - first;
    const int64_t parts = threads == 1 ? 1 : std::min((cost + target - 1) / target, segments);
    if (parts == 1) {
      pieces.push_back({i, cost});
      continue;
    }
    splits.push_back(std::make_unique<Split>());
    Split* split = splits.back().get();
    split->states.resize(static_cast<size_t>(segments));
    split->unfinished = parts;
    for (int64_t part = 0; part < parts; ++part) {
      pieces.push_back(
          {i, cost / parts, split, first + segments * part / parts, first + segments * (part + 1) / parts});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.cost > b.cost; });
  return pieces;
}

void run_piece(const Kernels& kernels, const Tile& tile, const Piece& piece, const Scratch& scratch) {
  if (piece.split == nullptr) {
    kernels.run(tile, scratch);
    return;
  }
  const State* states = piece.split->states.data();
  const int64_t first = first_segment(tile);
  kernels.run_segments(tile, scratch, piece.first_segment, piece.last_segment,
                       states + (piece.first_segment - first));
  if (piece.split->unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    kernels.merge(tile, states, first, last_segment(tile));
  }
}

void run_attention(const Kernels& kernels, const DeviceContext& device, const Attention& op) {
  const int64_t threads = device.pool == nullptr ? 1 : device.pool->size();
  const int64_t head_dim = op.cache.head_dim;
  const std::vector<Tile> tiles = make_tiles(op);
  std::vector<std::unique_ptr<Split>> splits;
  const std::vector<Piece> pieces = make_pieces(tiles, threads, splits);
  int64_t max_rows = 0;
  for (const Tile& tile : tiles) max_rows = std::max(max_rows, rows_of(tile));

  std::vector<Scratch> scratch(static_cast<size_t>(threads));
  const auto allocate = [&](Arena arena) {
    for (Scratch& s : scratch) s = arena.take_scratch(max_rows, head_dim);
    for (const Piece& piece : pieces) {
      if (piece.split == nullptr || piece.first_segment != first_segment(tiles[piece.tile])) continue;
      for (State& state : piece.split->states) state = arena.take_state(rows_of(tiles[piece.tile]), head_dim);
    }
    return arena.used();
  };
  Memory memory(allocate(Arena(nullptr)));
  allocate(Arena(memory.data()));

  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      run_piece(kernels, tiles[piece.tile], piece, scratch[static_cast<size_t>(worker)]);
    }
  };
  const auto count = static_cast<int64_t>(pieces.size());
  if (device.pool != nullptr) {
    device.pool->parallel_for(count, 1, body);
  } else {
    body(0, count, 0);
  }
}

bool fits(const Attention& op) {
  return op.cache.head_dim % 16 == 0 && op.n_heads % op.cache.n_kv_heads == 0;
}

}  // namespace

#if defined(__x86_64__)

bool supports_attention_avx2(const DeviceContext& device, const Attention& op) {
  return device.isa >= CpuIsa::avx2 && fits(op);
}

bool supports_attention_avx512(const DeviceContext& device, const Attention& op) {
  return device.isa >= CpuIsa::avx512 && fits(op);
}

void attention_avx2(const DeviceContext& device, const Attention& op) {
  run_attention(attention::kernels_avx2(), device, op);
}

void attention_avx512(const DeviceContext& device, const Attention& op) {
  run_attention(attention::kernels_avx512(), device, op);
}

#else

bool supports_attention_avx2(const DeviceContext&, const Attention&) {
  return false;
}

bool supports_attention_avx512(const DeviceContext&, const Attention&) {
  return false;
}

void attention_avx2(const DeviceContext&, const Attention&) {
  assert(false);
}

void attention_avx512(const DeviceContext&, const Attention&) {
  assert(false);
}

#endif

}  // namespace atom::cpu
