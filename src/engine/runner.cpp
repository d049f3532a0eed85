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

MatrixView<float> Runner::device_logits(MatrixView<const float> hidden) {
  const int64_t vocab = model_->config().vocab;
  const auto needed = static_cast<size_t>(hidden.rows * vocab);
  if (logits_.size() < needed) logits_ = Buffer<float>(needed, model_->device().memory);
  const MatrixView<float> out{logits_.data(), hidden.rows, vocab};
  model_->logits(hidden, out, workspace_);
  return out;
}

MatrixView<float> Runner::logits(MatrixView<const float> hidden) {
  const MatrixView<float> logits = device_logits(hidden);
  Memory* memory = model_->device().memory;
  if (memory == nullptr) return logits;
  const auto count = static_cast<size_t>(logits.rows * logits.cols);
  if (host_logits_.size() < count) host_logits_ = Buffer<float>(count);
  memory->download(host_logits_.data(), logits.data, count * sizeof(float));
  return {host_logits_.data(), logits.rows, logits.cols};
}

void Runner::greedy(MatrixView<const float> hidden, std::span<int32_t> out) {
  assert(hidden.rows == static_cast<int64_t>(out.size()));
  const DeviceContext& device = model_->device();
  const MatrixView<float> logits = device_logits(hidden);
  if (device.memory == nullptr) {
    run(device, Argmax{logits, out});
    return;
  }
  if (tokens_out_.size() < out.size()) tokens_out_ = Buffer<int32_t>(out.size(), device.memory);
  run(device, Argmax{logits, tokens_out_.span().first(out.size())});
  device.memory->download(out.data(), tokens_out_.data(), out.size_bytes());
}

void Runner::sample(MatrixView<const float> hidden, std::span<const SampleParams> params,
                    std::span<int32_t> out) {
  assert(hidden.rows == static_cast<int64_t>(out.size()) && params.size() == out.size());
  const DeviceContext& device = model_->device();
  const MatrixView<float> logits = device_logits(hidden);
  if (device.memory == nullptr) {
    run(device, Sample{logits, params, out});
    return;
  }
  if (tokens_out_.size() < out.size()) tokens_out_ = Buffer<int32_t>(out.size(), device.memory);
  if (sample_params_.size() < out.size()) sample_params_ = Buffer<SampleParams>(out.size(), device.memory);
  device.memory->upload(sample_params_.data(), params.data(), params.size_bytes());
  run(device, Sample{logits, std::as_const(sample_params_).span().first(out.size()),
                     tokens_out_.span().first(out.size())});
  device.memory->download(out.data(), tokens_out_.data(), out.size_bytes());
}

void Runner::negative_log_likelihoods(MatrixView<const float> hidden, std::span<const int32_t> targets,
                                      std::span<double> out) {
  assert(hidden.rows == static_cast<int64_t>(targets.size()) && targets.size() == out.size());
  const DeviceContext& device = model_->device();
  const MatrixView<float> logits = device_logits(hidden);
  const auto columns = Buffer<int32_t>::copy_of(targets, device.memory);
  Buffer<double> normalizers(out.size(), device.memory);
  Buffer<float> picked(out.size(), device.memory);
  run(device, LogSumExp{logits, normalizers.span()});
  run(device, PickColumns{logits, columns.span(), picked.span()});
  const Buffer<double> host_normalizers = normalizers.clone();
  const Buffer<float> host_picked = picked.clone();
  for (size_t i = 0; i < out.size(); ++i) out[i] = host_normalizers[i] - static_cast<double>(host_picked[i]);
}

}  // namespace atom
