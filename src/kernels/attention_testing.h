#pragma once

#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "base/random.h"
#include "kernels/ops.h"
#include "tensor/half.h"

/// A paged cache with random contents and random pages, and a ragged batch over it: what the tests of
/// Attention and its benchmark run on. Contents depend on seed, sequence, token and KV head alone, never on
/// the paging.
namespace atom::testing {

struct AttentionShape {
  KvFormat format = KvFormat::f16;
  int64_t head_dim = 64;
  int64_t n_kv_heads = 3;
  int64_t group = 3;
  int64_t block_size = 16;
  /// Magnitude of queries.
  float q_scale = 1.0f;
  /// Keys that a row sees at most; 0: all.
  int64_t window = 0;
};

class AttentionBatch {
 public:
  /// Sequence i has contexts[i] tokens; its last rows[i] are in the batch. `order` seeds the order of pages.
  AttentionBatch(const AttentionShape& shape, std::vector<int64_t> contexts, std::vector<int64_t> rows,
                 uint64_t order = 1, std::vector<uint64_t> identities = {})
      : shape_(shape), contexts_(std::move(contexts)), rows_(std::move(rows)), identities_(identities) {
    if (identities_.empty()) {
      for (size_t i = 0; i < contexts_.size(); ++i) identities_.push_back(i);
    }
    make_pages(order);
    for (size_t i = 0; i < contexts_.size(); ++i) fill_sequence(i);
    make_queries();
  }

  Attention op() {
    const int64_t n_heads = shape_.n_kv_heads * shape_.group;
    Attention op{q_.view(),  spans_, view_, n_heads, 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                 out_.view()};
    op.window = shape_.window;
    return op;
  }

  /// Runs the implementation called `name` on `device` and returns its output.
  std::vector<float> run(const char* name, const DeviceContext& device) {
    std::fill(out_.span().begin(), out_.span().end(), std::numeric_limits<float>::quiet_NaN());
    const Attention attention = op();
    for (const auto& candidate : implementations<Attention>()) {
      if (std::strcmp(candidate.name, name) == 0) candidate.run(device, attention);
    }
    return {out_.span().begin(), out_.span().end()};
  }

  const AttentionShape& shape() const { return shape_; }
  const std::vector<SequenceSpan>& spans() const { return spans_; }
  KvLayerView& view() { return view_; }
  Matrix<float>& q() { return q_; }
  int64_t row_width() const { return shape_.n_kv_heads * shape_.group * shape_.head_dim; }

 private:
  static uint64_t seed_of(uint64_t sequence, int64_t token, int64_t head, uint64_t what) {
    return (sequence * 1000003 + static_cast<uint64_t>(token)) * 512 + static_cast<uint64_t>(head) * 4 + what;
  }
  static float symmetric(Random& random) { return static_cast<float>(random.uniform() * 2 - 1); }

  void make_pages(uint64_t order) {
    int64_t n_blocks = 1;  // one that nobody uses
    for (const int64_t c : contexts_) n_blocks += (c + shape_.block_size - 1) / shape_.block_size;
    std::vector<int32_t> pages(static_cast<size_t>(n_blocks));
    std::iota(pages.begin(), pages.end(), 0);
    Random random(order);
    for (size_t i = pages.size() - 1; i > 0; --i) std::swap(pages[i], pages[random.below(i + 1)]);
    view_.format = shape_.format;
    view_.n_blocks = n_blocks;
    view_.block_size = shape_.block_size;
    view_.n_kv_heads = shape_.n_kv_heads;
    view_.head_dim = shape_.head_dim;
    // Exactly as large as the view says, so that a sanitizer sees what is read beyond it. Bytes that belong
    // to no token are NaN in f32, f16 and scales: a result they reach is wrong.
    const auto n_rows = static_cast<size_t>(n_blocks * shape_.n_kv_heads * shape_.block_size);
    keys_.assign(n_rows * static_cast<size_t>(view_.row_bytes()), std::byte{0xFF});
    values_ = keys_;
    view_.keys = keys_.data();
    view_.values = values_.data();
    if (is_quantized(shape_.format)) {
      key_params_.assign(n_rows * 2, 0x7E00);
      value_params_ = key_params_;
      view_.key_params = key_params_.data();
      view_.value_params = value_params_.data();
    }
    size_t next = 0;
    int64_t first_row = 0;
    for (size_t i = 0; i < contexts_.size(); ++i) {
      const auto n = static_cast<size_t>((contexts_[i] + shape_.block_size - 1) / shape_.block_size);
      tables_.emplace_back(pages.begin() + static_cast<int64_t>(next),
                           pages.begin() + static_cast<int64_t>(next + n));
      next += n;
      spans_.push_back({first_row, rows_[i], contexts_[i], nullptr});
      first_row += rows_[i];
    }
    for (size_t i = 0; i < spans_.size(); ++i) spans_[i].blocks = tables_[i].data();
    n_rows_ = first_row;
  }

  void fill_row(uint64_t seed, float bias, std::byte* row, uint16_t* params) {
    Random random(seed);
    if (params != nullptr) {
      const float levels = shape_.format == KvFormat::int4 ? 15.0f : 255.0f;
      params[0] = float_to_half(static_cast<float>(random.uniform() + 0.5) * 2.0f / levels);
      params[1] = float_to_half(-1.0f + bias + 0.1f * symmetric(random));
      for (int64_t i = 0; i < view_.row_bytes(); ++i) row[i] = static_cast<std::byte>(random.below(256));
      return;
    }
    for (int64_t d = 0; d < shape_.head_dim; ++d) {
      const float x = symmetric(random) + bias;
      const uint16_t half = float_to_half(x);
      if (shape_.format == KvFormat::f16) std::memcpy(row + d * 2, &half, sizeof half);
      if (shape_.format == KvFormat::f32) std::memcpy(row + d * 4, &x, sizeof x);
    }
  }

  void fill_sequence(size_t i) {
    const bool quantized = is_quantized(shape_.format);
    for (int64_t t = 0; t < contexts_[i]; ++t) {
      for (int64_t h = 0; h < shape_.n_kv_heads; ++h) {
        const int64_t row =
            view_.row_index(tables_[i][static_cast<size_t>(t / shape_.block_size)], h, t % shape_.block_size);
        fill_row(seed_of(identities_[i], t, h, 0), 0.0f, view_.keys + row * view_.row_bytes(),
                 quantized ? view_.key_params + row * 2 : nullptr);
        fill_row(seed_of(identities_[i], t, h, 1), 0.3f, view_.values + row * view_.row_bytes(),
                 quantized ? view_.value_params + row * 2 : nullptr);
      }
    }
  }

  void make_queries() {
    q_ = Matrix<float>(n_rows_, row_width());
    out_ = Matrix<float>(n_rows_, row_width());
    for (size_t i = 0; i < spans_.size(); ++i) {
      for (int64_t r = 0; r < rows_[i]; ++r) {
        Random random(seed_of(identities_[i], contexts_[i] - rows_[i] + r, 0, 2));
        for (int64_t c = 0; c < row_width(); ++c) {
          q_(spans_[i].first_row + r, c) = symmetric(random) * 3.0f * shape_.q_scale;
        }
      }
    }
  }

  AttentionShape shape_;
  std::vector<int64_t> contexts_;
  std::vector<int64_t> rows_;
  std::vector<uint64_t> identities_;
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
  std::vector<uint16_t> key_params_;
  std::vector<uint16_t> value_params_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceSpan> spans_;
  KvLayerView view_;
  int64_t n_rows_ = 0;
  Matrix<float> q_;
  Matrix<float> out_;
};

}  // namespace atom::testing
