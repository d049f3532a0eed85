#include "model/decoder_layer.h"

#include <algorithm>
#include <cmath>

namespace atom {

void RopeTable::grow(int64_t needed, const ModelConfig& config) {
  if (needed <= positions) return;
  // By doubling, so that an answer of any length costs a few tables, and never more than twice what it uses.
  constexpr int64_t kFirst = 512;
  positions = std::max(needed, std::min(std::max(2 * positions, kFirst), config.max_positions));
  const int64_t half = config.head_dim / 2;
  cos = Buffer<float>(static_cast<size_t>(positions * half));
  sin = Buffer<float>(static_cast<size_t>(positions * half));
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    // Rounded to float as the reference implementations have it: the angle is the float product.
    const auto frequency = static_cast<float>(std::pow(static_cast<double>(config.rope_theta), exponent));
    for (int64_t p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * frequency;
      cos[p * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sin[p * half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

MatrixView<float> Workspace::view(Buffer<float>& buffer, int64_t rows, int64_t cols) {
  const auto needed = static_cast<size_t>(rows * cols);
  if (buffer.size() < needed) buffer = Buffer<float>(needed);
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
    const MatrixView<float> normed = step.workspace->normed(x.rows, x.cols);
    run(*step.device, RmsNorm{x, weight.data(), eps, normed});
    linear.forward(*step.device, {normed, nullptr}, y, false);
  }
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
  const int64_t v_begin = config.q_size() + config.kv_size();
  const MatrixView<float> q = qkv.col_range(0, config.q_size());
  const MatrixView<float> k = qkv.col_range(config.q_size(), v_begin);
  const MatrixView<float> v = qkv.col_range(v_begin, config.qkv_size());
  run(*step.device, RopeAppend{q, k, v, batch.positions, batch.slots, step.rope->cos.data(),
                               step.rope->sin.data(), step.rotate_keys, cache});
  const MatrixView<float> out = step.workspace->attention(rows, config.q_size());
  const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  run(*step.device, Attention{q, batch.sequences, cache, config.n_heads, scale, out});
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
}

MatrixView<const float> DecoderLayer::gate_up(const StepContext& step, MatrixView<const float> hidden) const {
  const MatrixView<float> out = step.workspace->gate_up(hidden.rows, 2 * step.config->intermediate);
  norm_linear(step, hidden, mlp_norm, linear(LayerInput::gate_up), out);
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
    const MatrixView<float> inner = step.workspace->inner(gate_up.rows, step.config->intermediate);
    run(*step.device, SiluMul{gate_up, inner});
    down.forward(*step.device, {inner, nullptr}, hidden, true);
  }
}

}  // namespace atom
