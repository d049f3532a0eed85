#include <algorithm>
#include <cassert>
#include <functional>
#include <numeric>

#include "base/interrupt.h"
#include "base/random.h"
#include "model/model.h"
#include "model/weights.h"

// Model::random: every array is made where it stays, by RandomFill, from a seed of its own.

namespace atom {
namespace {

/// Standard deviation of the weights: what trained models of this family have.
constexpr float kWeightDeviation = 0.02f;
/// INT4 values of every magnitude then give about that deviation.
constexpr float kScale = 0.0045f;
constexpr float kOutlierScale = 0.0003f;

class RandomWeights {
 public:
  RandomWeights(const DeviceContext& device, uint64_t seed) : device_(&device), seed_(seed) {}

  template <class T>
  Buffer<T> buffer(int64_t count, DType dtype, float scale, float offset) {
    assert(sizeof(T) == size_of(dtype));
    Buffer<T> out(static_cast<size_t>(count), device_->memory);
    run(*device_, RandomFill{out.data(), count, dtype, scale, offset, next_seed()});
    return out;
  }

  Tensor tensor(std::vector<int64_t> shape) {
    const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    auto storage =
        std::make_shared<Buffer<uint16_t>>(buffer<uint16_t>(count, DType::f16, kWeightDeviation, 0));
    return {DType::f16, std::move(shape), std::as_bytes(storage->span()), storage};
  }

  std::unique_ptr<Linear> low_bit(int64_t rows, const ActivationSpec& spec, bool reorder) {
    const ChannelLayout& layout = spec.layout;
    PreparedWeight weight;
    weight.n = rows;
    weight.layout = layout;
    weight.activation_bits = spec.bits;
    weight.values = buffer<uint8_t>(rows * ((layout.k_normal() + 1) / 2), DType::u8, 0, 0);
    weight.scales = buffer<uint16_t>(rows * layout.groups(), DType::f16, kScale / 8, kScale);
    if (layout.outlier_type == OutlierType::int8) {
      weight.outliers = buffer<int8_t>(rows * layout.n_outlier, DType::i8, 0, 0);
      const int64_t scales = layout.n_outlier == 0 ? 0 : rows;
      weight.outlier_scales = buffer<uint16_t>(scales, DType::f16, kOutlierScale / 8, kOutlierScale);
    } else {
      weight.outliers_fp16 = buffer<uint16_t>(rows * layout.n_outlier, DType::f16, kWeightDeviation, 0);
    }
    return make_low_bit_linear(*device_, std::move(weight), spec,
                               reorder ? permutation(layout.k) : std::vector<int32_t>());
  }

 private:
  uint64_t next_seed() { return ++seed_ * 0xD1342543DE82EF95u; }

  std::vector<int32_t> permutation(int64_t size) {
    std::vector<int32_t> order(static_cast<size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    Random random(next_seed());
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    return order;
  }

  const DeviceContext* device_;
  uint64_t seed_;
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
  const auto norm = [&] { return weights.buffer<float>(config.hidden, DType::f32, 0.1f, 1.0f); };
  model->embedding_ = weights.tensor({config.vocab, config.hidden});
  model->final_norm_ = norm();
  for (int64_t i = 0; i < config.n_layers; ++i) {
    throw_if_interrupted();
    DecoderLayer layer;
    layer.attention_norm = norm();
    layer.mlp_norm = norm();
    for (const LayerInput input : kLayerInputs) {
      const LinearShape shape = shape_of(config, input);
      const int64_t rows = std::accumulate(shape.rows.begin(), shape.rows.end(), int64_t{0});
      auto& linear = layer.linears[static_cast<size_t>(input)];
      if (quantization) {
        linear = weights.low_bit(rows, activation_spec_of(*quantization, shape.cols, input),
                                 input != LayerInput::down);
      } else {
        linear = make_float_linear(weights.tensor({rows, shape.cols}));
      }
    }
    model->layers_.push_back(std::move(layer));
  }
  if (quantization && quantization->lm_head_bits == 8) {
    model->lm_head_ = weights.low_bit(config.vocab, lm_head_activation_spec(config.hidden), false);
  } else if (config.tied_embeddings) {
    model->lm_head_ = make_float_linear(model->embedding_);
    model->lm_head_shares_embedding_ = true;
  } else {
    model->lm_head_ = make_float_linear(weights.tensor({config.vocab, config.hidden}));
  }
  return model;
}

}  // namespace atom
