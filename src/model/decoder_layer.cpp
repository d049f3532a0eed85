#include "model/decoder_layer.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <utility>

namespace atom {
namespace {

/// Elements of `type`, at most as wide as floats, in the memory of a dense matrix of floats.
FloatOutput as_type(MatrixView<float> memory, DType type) {
  return {memory.data, type, memory.rows, memory.cols};
}

}  // namespace

Batch PlacedBatch::place(const Batch& batch, int64_t block_size, int64_t rows, int64_t max_context) {
  Batch placed = batch;
  placed.max_context = max_context;
  for (const SequenceSpan& sequence : batch.sequences) {
    placed.max_rows = std::max(placed.max_rows, sequence.n_rows);
    placed.min_rows = placed.min_rows == 0 ? sequence.n_rows : std::min(placed.min_rows, sequence.n_rows);
  }
  if (device_->memory == nullptr) return placed;
  const int64_t max_blocks = (max_context + block_size - 1) / block_size;
  // A row beyond the batch's own has a sequence of its own, without rows.
  const auto own = static_cast<int64_t>(batch.tokens.size());
  const auto n_sequences = static_cast<int64_t>(batch.sequences.size()) + rows - own;
  const auto u = [](int64_t n) { return static_cast<size_t>(n); };
  const size_t slots = 0;
  const size_t sequences = slots + u(rows) * sizeof(int64_t);
  const size_t tokens = sequences + u(n_sequences) * sizeof(SequenceSpan);
  const size_t positions = tokens + u(rows) * sizeof(int32_t);
  const size_t blocks = positions + u(rows) * sizeof(int32_t);
  const size_t size = blocks + u(n_sequences * max_blocks) * sizeof(int32_t);
  if (bytes_.size() < size) bytes_ = Buffer<std::byte>(size, device_->memory);
  staging_.assign(size, std::byte{0});
  const auto put = [&](size_t at, const void* from, size_t bytes) {
    if (bytes != 0) std::memcpy(staging_.data() + at, from, bytes);
  };
  put(slots, batch.slots.data(), batch.slots.size_bytes());
  put(tokens, batch.tokens.data(), batch.tokens.size_bytes());
  put(positions, batch.positions.data(), batch.positions.size_bytes());
  constexpr int64_t kNowhere = -1;
  for (int64_t row = own; row < rows; ++row)
    put(slots + u(row) * sizeof(int64_t), &kNowhere, sizeof(int64_t));
  const auto address = [&](size_t at) { return bytes_.data() + at; };
  for (int64_t i = 0; i < n_sequences; ++i) {
    const size_t table = blocks + u(i * max_blocks) * sizeof(int32_t);
    SequenceSpan span{own, 0, 0, nullptr};
    if (u(i) < batch.sequences.size()) {
      span = batch.sequences[u(i)];
      const int64_t used = (span.context + block_size - 1) / block_size;
      assert(used <= max_blocks);
      put(table, span.blocks, u(used) * sizeof(int32_t));
    }
    span.blocks = reinterpret_cast<const int32_t*>(address(table));
    put(sequences + u(i) * sizeof(SequenceSpan), &span, sizeof(span));
  }
  device_->memory->upload(bytes_.data(), staging_.data(), size);
  placed.slots = {reinterpret_cast<const int64_t*>(address(slots)), u(rows)};
  placed.sequences = {reinterpret_cast<const SequenceSpan*>(address(sequences)), u(n_sequences)};
  placed.tokens = {reinterpret_cast<const int32_t*>(address(tokens)), u(rows)};
  placed.positions = {reinterpret_cast<const int32_t*>(address(positions)), u(rows)};
  return placed;
}

std::vector<int64_t> Workspace::addresses() const {
  std::vector<int64_t> addresses;
  const auto add = [&](const void* data) { addresses.push_back(reinterpret_cast<int64_t>(data)); };
  for (const auto* buffer : {&normed_, &qkv_, &attention_, &gate_up_, &inner_, &hidden_}) add(buffer->data());
  add(quantized_.values());
  add(quantized_.scales());
  add(quantized_.units());
  add(rope_.cos.data());
  add(batch_.data());
  return addresses;
}

MatrixView<float> Workspace::view(Buffer<float>& buffer, int64_t rows, int64_t cols) {
  const auto needed = static_cast<size_t>(rows * cols);
  if (buffer.size() < needed) buffer = Buffer<float>(needed, device_->memory);
  return {buffer.data(), rows, cols};
}

void norm_linear(const StepContext& step, MatrixView<const float> x, const Buffer<float>& weight,
                 const Linear& linear, MatrixView<float> y) {
  const float eps = step.config->rms_norm_eps;
  if (const ActivationSpec* spec = linear.activation_spec()) {
    QuantizedActivations& quantized = step.workspace->quantized();
    quantized.resize(x.rows, *spec);
    run(*step.device, RmsNormQuantize{x, weight.data(), eps, linear.permutation(), &quantized});
    linear.forward(*step.device, {{}, &quantized}, y, false);
  } else {
    const FloatOutput normed =
        as_type(step.workspace->normed(x.rows, x.cols), linear.input_type(*step.device));
    run(*step.device, RmsNorm{x, weight.data(), eps, normed});
    linear.forward(*step.device, {normed, nullptr}, y, false);
  }
}

void DecoderLayer::add_bias(const StepContext& step, LayerInput input, MatrixView<float> y) const {
  const Buffer<float>& bias = biases[static_cast<size_t>(input)];
  if (!bias.empty()) run(*step.device, AddBias{y, bias.data()});
}

void DecoderLayer::forward(const StepContext& step, const Batch& batch, const KvLayerView& cache,
                           MatrixView<float> hidden) const {
  add_attention(step, attend(step, batch, cache, hidden), hidden);
  add_mlp(step, gate_up(step, hidden), hidden);
}

MatrixView<const float> DecoderLayer::attend(const StepContext& step, const Batch& batch,
                                             const KvLayerView& cache, MatrixView<const float> hidden) const {
  const ModelConfig& config = *step.config;
  const int64_t rows = hidden.rows;
  const MatrixView<float> qkv = step.workspace->qkv(rows, config.qkv_size());
  norm_linear(step, hidden, attention_norm, linear(LayerInput::qkv), qkv);
  add_bias(step, LayerInput::qkv, qkv);
  const int64_t v_begin = config.q_size() + config.kv_size();
  const MatrixView<float> q = qkv.col_range(0, config.q_size());
  const MatrixView<float> k = qkv.col_range(config.q_size(), v_begin);
  const MatrixView<float> v = qkv.col_range(v_begin, config.qkv_size());
  if (!q_norm.empty()) {
    run(*step.device, HeadNorm{q, config.head_dim, q_norm.data(), config.rms_norm_eps});
    run(*step.device, HeadNorm{k, config.head_dim, k_norm.data(), config.rms_norm_eps});
  }
  run(*step.device, RopeAppend{q, k, v, batch.positions, batch.slots, step.rope->cos.data(),
                               step.rope->sin.data(), step.rotate_keys, cache});
  const MatrixView<float> out = step.workspace->attention(rows, config.q_size());
  const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  // Kernels that know no window do as well where none of the contexts is longer.
  const int64_t seen = window < batch.max_context ? window : 0;
  run(*step.device, Attention{q, batch.sequences, cache, config.n_heads, scale, out, batch.max_rows,
                              batch.max_context, batch.min_rows, seen});
  return out;
}

void DecoderLayer::add_attention(const StepContext& step, MatrixView<const float> attended,
                                 MatrixView<float> hidden) const {
  const Linear& o = linear(LayerInput::o);
  if (const ActivationSpec* spec = o.activation_spec()) {
    QuantizedActivations& quantized = step.workspace->quantized();
    quantized.resize(attended.rows, *spec);
    run(*step.device, ReorderQuantize{attended, o.permutation(), &quantized});
    o.forward(*step.device, {{}, &quantized}, hidden, true);
  } else {
    o.forward(*step.device, {attended, nullptr}, hidden, true);
  }
  add_bias(step, LayerInput::o, hidden);
}

MatrixView<const float> DecoderLayer::gate_up(const StepContext& step, MatrixView<const float> hidden) const {
  const MatrixView<float> out = step.workspace->gate_up(hidden.rows, 2 * step.config->intermediate);
  norm_linear(step, hidden, mlp_norm, linear(LayerInput::gate_up), out);
  add_bias(step, LayerInput::gate_up, out);
  return out;
}

void DecoderLayer::add_mlp(const StepContext& step, MatrixView<const float> gate_up,
                           MatrixView<float> hidden) const {
  const Linear& down = linear(LayerInput::down);
  if (const ActivationSpec* spec = down.activation_spec()) {
    QuantizedActivations& quantized = step.workspace->quantized();
    quantized.resize(gate_up.rows, *spec);
    run(*step.device, SiluMulQuantize{gate_up, &quantized});
    down.forward(*step.device, {{}, &quantized}, hidden, true);
  } else {
    const FloatOutput inner = as_type(step.workspace->inner(gate_up.rows, step.config->intermediate),
                                      down.input_type(*step.device));
    run(*step.device, SiluMul{gate_up, inner});
    down.forward(*step.device, {inner, nullptr}, hidden, true);
  }
  add_bias(step, LayerInput::down, hidden);
}

}  // namespace atom
