#include <memory>
#include <numeric>

#include "base/interrupt.h"
#include "kernels/random_operands.h"
#include "model/model.h"
#include "model/weights.h"

// Model::random: every array is made where it stays, by RandomFill, from a seed of its own.

namespace atom {
namespace {

/// Standard deviation of the weights: what trained models of this family have.
constexpr float kWeightDeviation = 0.02f;

class RandomWeights {
 public:
  RandomWeights(const DeviceContext& device, uint64_t seed) : device_(&device), seeds_(seed) {}

  Buffer<float> norm(int64_t size) {
    return random_buffer<float>(*device_, size, DType::f32, 0.1f, 1.0f, seeds_.next());
  }

  Buffer<float> bias(int64_t size) {
    return random_buffer<float>(*device_, size, DType::f32, 0.1f, 0.0f, seeds_.next());
  }

  Tensor tensor(int64_t rows, int64_t cols) {
    auto storage = std::make_shared<Buffer<uint16_t>>(
        random_buffer<uint16_t>(*device_, rows * cols, DType::f16, kWeightDeviation, 0, seeds_.next()));
    return {DType::f16, {rows, cols}, std::as_bytes(storage->span()), storage};
  }

  std::unique_ptr<Linear> low_bit(int64_t rows, const ActivationSpec& spec, bool reorder) {
    PreparedWeight weight = random_weight(*device_, rows, spec.layout, spec.bits, seeds_.next());
    std::vector<int32_t> permutation;
    const bool orders = spec.layout.k_normal() > 0 && spec.bits != 16;
    if (reorder && orders) permutation = random_permutation(seeds_, spec.layout.k);
    return make_low_bit_linear(*device_, std::move(weight), spec, permutation);
  }

 private:
  const DeviceContext* device_;
  Random seeds_;
};

}  // namespace

std::unique_ptr<Model> Model::random(const ModelConfig& config,
                                     const std::optional<QuantizationConfig>& quantization,
                                     const DeviceContext& device, uint64_t seed) {
  std::unique_ptr<Model> model(new Model());
  model->device_ = &device;
  model->config_ = config;
  model->quantization_ = quantization;
  model->check_quantization("random model");
  RandomWeights weights(device, seed);
  model->embedding_ = weights.tensor(config.vocab, config.hidden);
  model->final_norm_ = weights.norm(config.hidden);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    throw_if_interrupted();
    DecoderLayer layer;
    layer.attention_norm = weights.norm(config.hidden);
    layer.mlp_norm = weights.norm(config.hidden);
    if (config.head_norms) {
      layer.q_norm = weights.norm(config.head_dim);
      layer.k_norm = weights.norm(config.head_dim);
    }
    layer.window = config.window_of(i);
    for (const LayerInput input : kLayerInputs) {
      const LinearShape shape = shape_of(config, input);
      const int64_t rows = std::accumulate(shape.rows.begin(), shape.rows.end(), int64_t{0});
      auto& linear = layer.linears[static_cast<size_t>(input)];
      if (quantization) {
        linear = weights.low_bit(rows, activation_spec_of(*quantization, shape.cols, input),
                                 input != LayerInput::down);
      } else {
        linear = make_float_linear(weights.tensor(rows, shape.cols));
      }
      if (has_bias(config, input)) layer.biases[static_cast<size_t>(input)] = weights.bias(rows);
    }
    model->layers_.push_back(std::move(layer));
  }
  if (quantization && quantization->lm_head_bits == 8) {
    model->lm_head_ = weights.low_bit(config.vocab, lm_head_activation_spec(config.hidden), false);
  } else if (config.tied_embeddings) {
    model->lm_head_ = make_float_linear(model->embedding_);
    model->lm_head_shares_embedding_ = true;
  } else {
    model->lm_head_ = make_float_linear(weights.tensor(config.vocab, config.hidden));
  }
  return model;
}

}  // namespace atom
