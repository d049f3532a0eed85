#include "engine/runner.h"

#include <algorithm>
#include <cassert>

namespace atom {

MatrixView<const float> Runner::step(std::span<const Chunk> chunks) {
  append(chunks);
  try {
    return forward();
  } catch (...) {
    take_back(chunks);
    throw;
  }
}

void Runner::append(std::span<const Chunk> chunks) {
  tokens_.clear();
  positions_.clear();
  slots_.clear();
  spans_.clear();
  try {
    for (const Chunk& chunk : chunks) {
      const int64_t begin = chunk.table->length();
      const auto rows = static_cast<int64_t>(chunk.tokens.size());
      const auto first_row = static_cast<int64_t>(tokens_.size());
      chunk.table->append(rows, slots_);
      spans_.push_back({first_row, rows, begin + rows, chunk.table->blocks()});
      tokens_.insert(tokens_.end(), chunk.tokens.begin(), chunk.tokens.end());
      for (int64_t i = 0; i < rows; ++i) positions_.push_back(static_cast<int32_t>(begin + i));
    }
  } catch (...) {
    take_back(chunks);
    throw;
  }
}

void Runner::take_back(std::span<const Chunk> chunks) {
  for (size_t i = 0; i < spans_.size(); ++i) {
    chunks[i].table->truncate(spans_[i].context - spans_[i].n_rows);
  }
}

MatrixView<const float> Runner::forward() {
  return model_->forward({tokens_, positions_, slots_, spans_}, *cache_, workspace_);
}

void Runner::negative_log_likelihoods(MatrixView<const float> hidden, std::span<const int32_t> targets,
                                      std::span<double> out) {
  assert(hidden.rows == static_cast<int64_t>(targets.size()) && targets.size() == out.size());
  const DeviceContext& device = model_->device();
  const int64_t vocab = model_->config().vocab;
  const auto needed = static_cast<size_t>(hidden.rows * vocab);
  if (logits_.size() < needed) logits_ = Buffer<float>(needed, device.memory);
  const MatrixView<float> logits{logits_.data(), hidden.rows, vocab};
  model_->logits(hidden, logits, workspace_);
  targets_.host().assign(targets.begin(), targets.end());
  run(device, LogSumExp{logits, normalizers_.room(out.size(), device.memory)});
  run(device, PickColumns{logits, targets_.upload(device.memory), picked_.room(out.size(), device.memory)});
  const std::span<const double> normalizers = normalizers_.download(device.memory);
  const std::span<const float> picked = picked_.download(device.memory);
  for (size_t i = 0; i < out.size(); ++i) out[i] = normalizers[i] - static_cast<double>(picked[i]);
}

}  // namespace atom
