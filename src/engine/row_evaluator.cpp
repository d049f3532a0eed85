#include "engine/row_evaluator.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace atom {
namespace {

MatrixView<float> matrix_in(Buffer<float>& buffer, int64_t rows, int64_t cols, Memory* memory) {
  const auto needed = static_cast<size_t>(rows * cols);
  if (buffer.size() < needed) {
    // Before the new one, so that there is room for it.
    buffer = {};
    buffer = Buffer<float>(needed, memory);
  }
  return {buffer.data(), rows, cols};
}

int64_t count_of(size_t n) {
  return static_cast<int64_t>(n);
}

float log_probability(float logit, double normalizer) {
  return static_cast<float>(static_cast<double>(logit) - normalizer);
}

}  // namespace

RowEvaluator::Kind RowEvaluator::kind_of(const RowQuery& query) {
  if (!query.draw) return kPlain;
  if (query.top < 0) return is_changed(query) ? kChangedDraw : kDraw;
  return is_changed(query) ? kRaw : kScoredDraw;
}

void RowEvaluator::evaluate(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                            std::span<RowAnswer> answers, Workspace& workspace) {
  assert(queries.size() == answers.size() && hidden.stride == hidden.cols);
  for (RowAnswer& answer : answers) {
    answer.token = -1;
    answer.logprob = 0;
    answer.top.clear();
  }
  size_t begin = 0;
  while (begin < queries.size()) {
    begin = plan(queries, begin);
    if (!order_.empty()) evaluate_piece(hidden, queries, answers, workspace);
  }
}

size_t RowEvaluator::plan(std::span<const RowQuery> queries, size_t begin) {
  const int64_t row_bytes = model_->config().vocab * static_cast<int64_t>(sizeof(float));
  const int64_t most_rows = std::max<int64_t>(1, most_bytes_ / row_bytes);
  size_t counts[kKinds] = {};
  int64_t rows = 0;
  size_t end = begin;
  for (; end < queries.size(); ++end) {
    if (!wants_logits(queries[end])) continue;
    const Kind kind = kind_of(queries[end]);
    const int64_t needed = kind == kRaw ? 2 : 1;
    if (rows > 0 && rows + needed > most_rows) break;
    rows += needed;
    ++counts[kind];
  }
  size_t next[kKinds];
  size_t sum = 0;
  for (int kind = 0; kind < kKinds; ++kind) {
    next[kind] = sum;
    ends_[kind] = sum += counts[kind];
  }
  order_.resize(sum);
  for (size_t i = begin; i < end; ++i) {
    if (wants_logits(queries[i])) order_[next[kind_of(queries[i])]++] = i;
  }
  return end;
}

void RowEvaluator::evaluate_piece(MatrixView<const float> hidden, std::span<const RowQuery> queries,
                                  std::span<RowAnswer> answers, Workspace& workspace) {
  const DeviceContext& device = model_->device();
  const int64_t computed = count_of(order_.size());
  const int64_t scored = count_of(ends_[kScoredDraw]);
  const int64_t first_raw = count_of(ends_[kPlain]), first_drawn = count_of(ends_[kRaw]);
  const int64_t first_changed = count_of(ends_[kDraw]);
  const int64_t all = computed + first_drawn - first_raw;
  const MatrixView<float> logits = matrix_in(logits_, all, model_->config().vocab, device.memory);
  model_->logits(gather(hidden, queries), logits.row_range(0, computed), workspace);
  if (scored > 0) score(logits.row_range(0, scored), queries);
  if (all > computed) {
    // As an embedding: rows of the table of all raw logits.
    rows_.host().resize(static_cast<size_t>(all - computed));
    for (int64_t i = 0; i < all - computed; ++i) {
      rows_.host()[static_cast<size_t>(i)] = static_cast<int32_t>(first_raw + i);
    }
    run(device, EmbeddingLookup{rows_.upload(device.memory), DType::f32, logits.data,
                                logits.row_range(computed, all)});
  }
  if (all > first_changed) change(logits.row_range(first_changed, all), queries);
  if (all > first_drawn) draw(logits.row_range(first_drawn, all), queries, answers);
  if (scored > 0) pick(logits.row_range(0, scored), queries, answers);
}

size_t RowEvaluator::query_of(int64_t row) const {
  const auto r = static_cast<size_t>(row);
  return r < order_.size() ? order_[r] : order_[ends_[kPlain] + r - order_.size()];
}

MatrixView<const float> RowEvaluator::gather(MatrixView<const float> hidden,
                                             std::span<const RowQuery> queries) {
  const int64_t rows = count_of(order_.size());
  const int64_t first = queries[order_[0]].row;
  bool is_range = true;
  rows_.host().resize(order_.size());
  for (size_t i = 0; i < order_.size(); ++i) {
    const int64_t row = queries[order_[i]].row;
    assert(row >= 0 && row < hidden.rows);
    rows_.host()[i] = static_cast<int32_t>(row);
    is_range &= row == first + count_of(i);
  }
  if (is_range) return hidden.row_range(first, first + rows);
  const DeviceContext& device = model_->device();
  const MatrixView<float> out = matrix_in(gathered_, rows, hidden.cols, device.memory);
  run(device, EmbeddingLookup{rows_.upload(device.memory), DType::f32, hidden.data, out});
  return out;
}

void RowEvaluator::score(MatrixView<const float> logits, std::span<const RowQuery> queries) {
  const DeviceContext& device = model_->device();
  const auto rows = static_cast<size_t>(logits.rows);
  run(device, LogSumExp{logits, normalizers_.room(rows, device.memory)});
  most_top_ = 0;
  for (size_t i = 0; i < rows; ++i) most_top_ = std::max<int64_t>(most_top_, queries[order_[i]].top);
  assert(most_top_ <= kMaxTopColumns);
  if (most_top_ == 0) return;
  const size_t count = rows * static_cast<size_t>(most_top_);
  run(device, TopColumns{logits, most_top_, top_columns_.room(count, device.memory),
                         top_values_.room(count, device.memory)});
}

void RowEvaluator::change(MatrixView<float> logits, std::span<const RowQuery> queries) {
  const DeviceContext& device = model_->device();
  const int64_t begin = count_of(ends_[kDraw]);
  first_.host().assign(1, 0);
  mask_of_.host().clear();
  changes_.host().clear();
  masks_.host().clear();
  int32_t masks = 0;
  for (int64_t row = begin; row < begin + logits.rows; ++row) {
    const RowQuery& query = queries[query_of(row)];
    changes_.host().insert(changes_.host().end(), query.changes.begin(), query.changes.end());
    first_.host().push_back(static_cast<int32_t>(changes_.host().size()));
    mask_of_.host().push_back(query.mask.empty() ? -1 : masks++);
    assert(query.mask.empty() || count_of(query.mask.size()) == (logits.cols + 31) / 32);
    masks_.host().insert(masks_.host().end(), query.mask.begin(), query.mask.end());
  }
  run(device, ChangeLogits{logits, first_.upload(device.memory), changes_.upload(device.memory),
                           mask_of_.upload(device.memory), masks_.upload(device.memory)});
}

void RowEvaluator::draw(MatrixView<const float> logits, std::span<const RowQuery> queries,
                        std::span<RowAnswer> answers) {
  const DeviceContext& device = model_->device();
  const int64_t begin = count_of(ends_[kRaw]);
  params_.host().clear();
  for (int64_t i = 0; i < logits.rows; ++i) params_.host().push_back(queries[query_of(begin + i)].params);
  run(device, Sample{logits, params_.upload(device.memory),
                     tokens_.room(static_cast<size_t>(logits.rows), device.memory)});
  const std::span<const int32_t> tokens = tokens_.download(device.memory);
  for (int64_t i = 0; i < logits.rows; ++i) {
    answers[query_of(begin + i)].token = tokens[static_cast<size_t>(i)];
  }
}

void RowEvaluator::pick(MatrixView<const float> logits, std::span<const RowQuery> queries,
                        std::span<RowAnswer> answers) {
  const DeviceContext& device = model_->device();
  const auto rows = static_cast<size_t>(logits.rows);
  const auto token_of = [&](size_t i) {
    const RowQuery& query = queries[order_[i]];
    return query.target >= 0 ? query.target : answers[order_[i]].token;
  };
  columns_.host().resize(rows);
  for (size_t i = 0; i < rows; ++i) {
    assert(token_of(i) < logits.cols);
    columns_.host()[i] = std::max(token_of(i), 0);
  }
  run(device, PickColumns{logits, columns_.upload(device.memory), picked_.room(rows, device.memory)});
  const std::span<const float> picked = picked_.download(device.memory);
  const std::span<const double> normalizers = normalizers_.download(device.memory);
  const auto most = static_cast<size_t>(most_top_);
  if (most > 0) {
    top_columns_.download(device.memory);
    top_values_.download(device.memory);
  }
  for (size_t i = 0; i < rows; ++i) {
    RowAnswer& answer = answers[order_[i]];
    answer.logprob = token_of(i) >= 0 ? log_probability(picked[i], normalizers[i])
                                      : std::numeric_limits<float>::quiet_NaN();
    for (size_t j = i * most; j < i * most + static_cast<size_t>(queries[order_[i]].top); ++j) {
      if (top_columns_.host()[j] < 0) break;
      answer.top.emplace_back(top_columns_.host()[j], log_probability(top_values_.host()[j], normalizers[i]));
    }
  }
}

}  // namespace atom
