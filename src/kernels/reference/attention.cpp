#include "kernels/reference/attention.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/numerics.h"
#include "tensor/half.h"

// Shapes: one work item is (sequence, KV head, up to kRowsPerItem of its tokens). It dequantizes the keys and
// values its rows may see to float [context, head_dim], then treats row by row, head by head, as attention.h
// says. Written to be read, not to be fast.
namespace atom {
namespace {

constexpr int64_t kRowsPerItem = 64;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Item {
  const SequenceSpan* sequence;
  int64_t kv_head;
  int64_t first;
  int64_t count;
};

/// Running maximum, 16 partial sums and weighted values of one row.
struct Softmax {
  explicit Softmax(int64_t head_dim) : weighted(static_cast<size_t>(head_dim)) { reset(); }
  void reset() {
    maximum = kMinusInfinity;
    sums.fill(0.0f);
    std::fill(weighted.begin(), weighted.end(), 0.0f);
  }

  float maximum;
  std::array<float, kAttentionSums> sums;
  std::vector<float> weighted;
};

/// A NaN candidate is ignored.
float max_of(float candidate, float current) {
  return candidate > current ? candidate : current;
}

void dequantize_row(KvFormat format, const std::byte* row, const uint16_t* params, int64_t n, float* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(row);
  const float scale = is_quantized(format) ? half_to_float(params[0]) : 0.0f;
  const float minimum = is_quantized(format) ? half_to_float(params[1]) : 0.0f;
  switch (format) {
    case KvFormat::f32:
      std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
      break;
    case KvFormat::f16:
      for (int64_t d = 0; d < n; ++d) {
        uint16_t half;
        std::memcpy(&half, row + d * 2, sizeof half);
        out[d] = half_to_float(half);
      }
      break;
    case KvFormat::int8:
      for (int64_t d = 0; d < n; ++d) out[d] = std::fma(static_cast<float>(bytes[d]), scale, minimum);
      break;
    case KvFormat::int4:
      for (int64_t d = 0; d < n; ++d) {
        const int q = (bytes[d / 2] >> (d % 2 * 4)) & 15;
        out[d] = std::fma(static_cast<float>(q), scale, minimum);
      }
      break;
  }
}

/// keys, values [end, head_dim] of tokens [begin, end) of `item`'s sequence.
void dequantize(const KvLayerView& cache, const Item& item, int64_t begin, int64_t end, float* keys,
                float* values) {
  const int64_t row_bytes = cache.row_bytes();
  const bool quantized = is_quantized(cache.format);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t block = item.sequence->blocks[t / cache.block_size];
    assert(block >= 0 && block < cache.n_blocks);
    const int64_t row = cache.row_index(block, item.kv_head, t % cache.block_size);
    dequantize_row(cache.format, cache.keys + row * row_bytes,
                   quantized ? cache.key_params + row * 2 : nullptr, cache.head_dim,
                   keys + t * cache.head_dim);
    dequantize_row(cache.format, cache.values + row * row_bytes,
                   quantized ? cache.value_params + row * 2 : nullptr, cache.head_dim,
                   values + t * cache.head_dim);
  }
}

/// Adds rows [first, count) of keys and values [count, head_dim], count <= 64, to `state`; q is scaled.
void add_tile(const float* q, const float* keys, const float* values, int64_t first, int64_t count,
              int64_t head_dim, Softmax& state) {
  std::array<float, kAttentionTile> scores;
  float maximum = state.maximum;
  for (int64_t j = first; j < count; ++j) {
    float score = 0.0f;
    for (int64_t d = 0; d < head_dim; ++d) score = std::fma(q[d], keys[j * head_dim + d], score);
    scores[static_cast<size_t>(j)] = score;
    maximum = max_of(score, maximum);
  }
  const float correction = numerics::exp(state.maximum - maximum);
  state.maximum = maximum;
  std::array<float, kAttentionSums> sums{};
  for (float& a : state.weighted) a *= correction;
  for (int64_t j = first; j < count; ++j) {
    const float e = numerics::exp(scores[static_cast<size_t>(j)] - maximum);
    sums[static_cast<size_t>(j % kAttentionSums)] += e;
    const float* v = values + j * head_dim;
    for (int64_t d = 0; d < head_dim; ++d) {
      float& a = state.weighted[static_cast<size_t>(d)];
      a = std::fma(e, v[d], a);
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) state.sums[i] = std::fma(state.sums[i], correction, sums[i]);
}

void merge(const Softmax& segment, Softmax& row) {
  const float maximum = max_of(segment.maximum, row.maximum);
  const float c_row = numerics::exp(row.maximum - maximum);
  const float c_segment = numerics::exp(segment.maximum - maximum);
  row.maximum = maximum;
  for (size_t i = 0; i < row.sums.size(); ++i) {
    row.sums[i] = std::fma(row.sums[i], c_row, segment.sums[i] * c_segment);
  }
  for (size_t d = 0; d < row.weighted.size(); ++d) {
    row.weighted[d] = std::fma(row.weighted[d], c_row, segment.weighted[d] * c_segment);
  }
}

float fold(std::array<float, kAttentionSums> sums) {
  for (size_t half = kAttentionSums / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

void run_item(const Attention& op, const Item& item) {
  const int64_t head_dim = op.cache.head_dim;
  const int64_t group = op.n_heads / op.cache.n_kv_heads;
  const int64_t first_position = item.sequence->context - item.sequence->n_rows + item.first;
  const int64_t visible = first_position + item.count;
  const int64_t window = op.window > 0 ? op.window : visible;
  const auto first_key = [&](int64_t limit) { return std::max<int64_t>(limit - window, 0); };
  std::vector<float> keys(static_cast<size_t>(visible * head_dim));
  std::vector<float> values(keys.size());
  dequantize(op.cache, item, first_key(first_position + 1), visible, keys.data(), values.data());

  std::vector<float> q(static_cast<size_t>(head_dim));
  Softmax row(head_dim);
  Softmax segment(head_dim);
  for (int64_t i = 0; i < item.count; ++i) {
    const int64_t batch_row = item.sequence->first_row + item.first + i;
    const int64_t limit = first_position + i + 1;
    for (int64_t head = item.kv_head * group; head < (item.kv_head + 1) * group; ++head) {
      const float* source = op.q.row(batch_row) + head * head_dim;
      for (int64_t d = 0; d < head_dim; ++d) q[static_cast<size_t>(d)] = source[d] * op.scale;
      row.reset();
      const int64_t first = first_key(limit);
      for (int64_t begin = first / kAttentionSegment * kAttentionSegment; begin < limit;
           begin += kAttentionSegment) {
        segment.reset();
        const int64_t end = std::min(begin + kAttentionSegment, limit);
        const int64_t first_tile = std::max(begin, first / kAttentionTile * kAttentionTile);
        for (int64_t tile = first_tile; tile < end; tile += kAttentionTile) {
          add_tile(q.data(), keys.data() + tile * head_dim, values.data() + tile * head_dim,
                   std::max<int64_t>(first - tile, 0), std::min(kAttentionTile, end - tile), head_dim,
                   segment);
        }
        merge(segment, row);
      }
      const float sum = fold(row.sums);
      float* out = op.out.row(batch_row) + head * head_dim;
      for (int64_t d = 0; d < head_dim; ++d) out[d] = row.weighted[static_cast<size_t>(d)] / sum + 0.0f;
    }
  }
}

}  // namespace

void reference::attention(const DeviceContext& device, const Attention& op) {
  assert(op.n_heads % op.cache.n_kv_heads == 0);
  std::vector<Item> items;
  for (const SequenceSpan& sequence : op.sequences) {
    assert(sequence.n_rows <= sequence.context);
    for (int64_t first = 0; first < sequence.n_rows; first += kRowsPerItem) {
      for (int64_t kv_head = 0; kv_head < op.cache.n_kv_heads; ++kv_head) {
        items.push_back({&sequence, kv_head, first, std::min(kRowsPerItem, sequence.n_rows - first)});
      }
    }
  }
  // The last tokens see the most keys: the heaviest items go first.
  std::reverse(items.begin(), items.end());
  const auto count = static_cast<int64_t>(items.size());
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) run_item(op, items[static_cast<size_t>(i)]);
  };
  if (device.pool != nullptr) {
    device.pool->parallel_for(count, 1, body);
  } else {
    body(0, count, 0);
  }
}

}  // namespace atom
