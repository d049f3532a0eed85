#include "model/model.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "base/error.h"
#include "kernels/integer_scales.h"
#include "model/weights.h"

namespace atom {
namespace {

std::unique_ptr<Linear> load_float(WeightReader& reader, const ModelConfig& config,
                                   const DeviceContext& device, int64_t layer, LayerInput input) {
  const LinearShape shape = shape_of(config, input);
  std::vector<std::string> names;
  for (const auto& linear : linears_of(input)) names.push_back(layer_prefix(layer) + linear + ".weight");
  return make_float_linear(to_memory(reader.stacked(names, shape.rows, shape.cols), device.memory));
}

/// Rows of a decode step are rounded up to one of these, so that few steps are recorded.
int64_t row_bucket(int64_t rows) {
  if (rows <= 8) return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  if (rows <= 64) return (rows + 7) / 8 * 8;
  return (rows + 31) / 32 * 32;
}

/// Contexts up to this many tokens share a recording with one of `context`.
int64_t context_bucket(int64_t context) {
  constexpr int64_t kSmallest = 256;
  return std::max(kSmallest, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(context))));
}

/// FP8 activations of random models have this scale: what their layers read is at most some tens.
constexpr float kRandomFloat8Scale = 0x1.0p-4f;

/// Whether every sequence has one token: the steps that are recorded.
bool is_decode(const Batch& batch) {
  return batch.sequences.size() == batch.tokens.size() &&
         std::all_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const SequenceSpan& sequence) { return sequence.n_rows == 1; });
}

std::unique_ptr<Linear> load_packed(WeightReader& reader, const ModelConfig& config,
                                    const QuantizationConfig& quantization, const DeviceContext& device,
                                    int64_t layer, LayerInput input) {
  const LinearShape shape = shape_of(config, input);
  ActivationSpec spec = activation_spec_of(quantization, shape.cols, input);
  const PackedInputNames names(layer, input);
  spec.clip = reader.clip(names.activation_clip);
  std::vector<int32_t> permutation = reader.permutation(names.permutation, shape.cols);
  const bool identity = std::is_sorted(permutation.begin(), permutation.end());
  require(spec.bits != 16 || identity, "{}: tensor {}: activations of 16 bits are not reordered",
          reader.checkpoint().path().string(), names.permutation);
  // The rows of gate and up were permuted offline: what down reads is in order already.
  if (input == LayerInput::down || identity) permutation.clear();

  std::vector<LowBitStorage> parts;
  const auto linears = linears_of(input);
  for (size_t i = 0; i < linears.size(); ++i) {
    parts.push_back(reader.low_bit(layer_prefix(layer) + linears[i], shape.rows[i], spec.layout));
  }
  std::vector<const LowBitStorage*> pointers;
  for (const auto& part : parts) pointers.push_back(&part);
  return make_low_bit_linear(device, stack_rows(pointers), spec, std::move(permutation));
}

std::unique_ptr<Linear> load_low_bit_head(WeightReader& reader, const ModelConfig& config,
                                          const DeviceContext& device) {
  const ActivationSpec spec = lm_head_activation_spec(config.hidden);
  return make_low_bit_linear(device, reader.low_bit("lm_head", config.vocab, spec.layout), spec, {});
}

}  // namespace

ActivationSpec activation_spec_of(const QuantizationConfig& quantization, int64_t channels,
                                  LayerInput input) {
  ActivationSpec spec;
  spec.layout.k = channels;
  spec.layout.n_outlier = quantization.outlier_channels[static_cast<size_t>(input)];
  spec.layout.group =
      quantization.group_size > 0 ? quantization.group_size : std::max<int64_t>(spec.layout.k_normal(), 1);
  spec.layout.outlier_type = quantization.fp8                 ? OutlierType::fp8
                             : quantization.outlier_bits == 8 ? OutlierType::int8
                                                              : OutlierType::fp16;
  spec.layout.integer_scales = quantization.integer_scales && spec.layout.k_normal() > 0;
  if (quantization.fp8) spec.scale = kRandomFloat8Scale;
  spec.bits = quantization.activation_bits;
  return spec;
}

void Model::check_quantization(const std::string& source) const {
  if (!quantization_) return;
  require(!quantization_->rotate_keys || std::has_single_bit(static_cast<uint64_t>(config_.head_dim)),
          "{}: quantization_config.rotate_keys: needs a head_dim that is a power of two, found {}", source,
          config_.head_dim);
  for (const LayerInput input : kLayerInputs) {
    const int64_t channels = shape_of(config_, input).cols;
    const int64_t n_outlier = quantization_->outlier_channels[static_cast<size_t>(input)];
    require(n_outlier <= channels,
            "{}: quantization_config.outlier_channels.{}: expected at most {} channels, found {}", source,
            name_of(input), channels, n_outlier);
    const ChannelLayout layout = activation_spec_of(*quantization_, channels, input).layout;
    require(quantization_->activation_bits != 16 || n_outlier == 0,
            "{}: quantization_config.outlier_channels.{}: expected 0 with activations of 16 bits, found {}",
            source, name_of(input), n_outlier);
    require(
        !layout.integer_scales || integer_scales::fits(layout.k_normal(), layout.n_outlier),
        "{}: quantization_config.scales: int32 does not hold the integer sums of {} normal and {} outlier "
        "channels of {}",
        source, layout.k_normal(), layout.n_outlier, name_of(input));
    // Kernels of quantized activations want whole groups.
    require(quantization_->activation_bits == 16 || layout.k_normal() % layout.group == 0,
            "{}: quantization_config.group_size: {} does not divide the {} normal channels of {}", source,
            layout.group, layout.k_normal(), name_of(input));
  }
}

ActivationSpec lm_head_activation_spec(int64_t hidden) {
  ActivationSpec spec;
  spec.layout.k = hidden;
  spec.layout.n_outlier = hidden;
  spec.bits = 8;
  return spec;
}

std::unique_ptr<Model> Model::load(const Checkpoint& checkpoint, const DeviceContext& device) {
  return load(checkpoint, device, false);
}

std::unique_ptr<Model> Model::outline(const Checkpoint& checkpoint, const DeviceContext& device) {
  return load(checkpoint, device, true);
}

std::unique_ptr<Model> Model::load(const Checkpoint& checkpoint, const DeviceContext& device,
                                   bool shapes_only) {
  const std::string source = checkpoint.path().string();
  std::unique_ptr<Model> model(new Model());
  model->device_ = &device;
  model->config_ = ModelConfig::from_json(checkpoint.config(), source + ": config");
  const ModelConfig& config = model->config_;
  if (is_quantized(checkpoint.config())) {
    model->quantization_ =
        QuantizationConfig::from_json(checkpoint.config()["quantization_config"], source + ": config");
  }
  const auto& quantization = model->quantization_;
  model->check_quantization(source);

  if (!quantization) check_tensor_names(checkpoint, config);
  if (!quantization && !shapes_only) check_values(checkpoint, config);
  WeightReader reader(checkpoint, shapes_only);
  model->embedding_ =
      to_memory(reader.floats("model.embed_tokens.weight", {config.vocab, config.hidden}), device.memory);
  model->final_norm_ = reader.vector("model.norm.weight", config.hidden, device.memory);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    DecoderLayer layer;
    read_layer_vectors(reader, config, device, i, layer);
    for (const LayerInput input : kLayerInputs) {
      layer.linears[static_cast<size_t>(input)] =
          quantization ? load_packed(reader, config, *quantization, device, i, input)
                       : load_float(reader, config, device, i, input);
    }
    model->layers_.push_back(std::move(layer));
  }
  if (quantization && quantization->lm_head_bits == 8) {
    model->lm_head_ = load_low_bit_head(reader, config, device);
  } else if (config.tied_embeddings) {
    model->lm_head_ = make_float_linear(model->embedding_);
    model->lm_head_shares_embedding_ = true;
  } else {
    model->lm_head_ = make_float_linear(
        to_memory(reader.floats("lm_head.weight", {config.vocab, config.hidden}), device.memory));
  }
  reader.refuse_unread(config.tied_embeddings);

  return model;
}

KvFormat Model::kv_format() const {
  if (!quantization_) return KvFormat::f16;
  switch (quantization_->kv_cache_bits) {
    case 4:
      return KvFormat::int4;
    case 8:
      return KvFormat::int8;
    default:
      return KvFormat::f16;
  }
}

MatrixView<const float> Model::forward(const Batch& batch, PagedKvCache& cache, Workspace& workspace) const {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  assert(batch.positions.size() == batch.tokens.size() && batch.slots.size() == batch.tokens.size());
  for (const int32_t token : batch.tokens) {
    require(token >= 0 && token < config_.vocab, "token id {} is outside of the vocabulary of {}", token,
            config_.vocab);
  }
  int64_t end = 0;
  for (const int32_t position : batch.positions) {
    require(position >= 0 && position < config_.max_positions,
            "position {} is beyond the model's limit of {} tokens", position, config_.max_positions);
    end = std::max<int64_t>(end, position + 1);
  }
  const bool rotate = quantization_ && quantization_->rotate_keys;
  const bool record = device_->cuda != nullptr && is_decode(batch);
  int64_t context = 1;
  for (const SequenceSpan& sequence : batch.sequences) context = std::max(context, sequence.context);
  if (record) context = context_bucket(context);
  const int64_t placed_rows = record ? row_bucket(rows) : rows;
  const int64_t positions = record ? std::max(end, std::min(context, config_.max_positions)) : end;
  const StepContext step{device_, &config_, &workspace.rope(positions, config_), rotate, &workspace};
  const Batch placed = workspace.batch().place(batch, cache.block_size(), placed_rows, context);
  const MatrixView<float> hidden = workspace.hidden(placed_rows, config_.hidden);
  const auto work = [&] {
    run(*device_, EmbeddingLookup{placed.tokens, embedding_.dtype, embedding_.bytes.data(), hidden});
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].forward(step, placed, cache.layer(static_cast<int64_t>(i)), hidden);
    }
  };
  if (record) {
    std::vector<int64_t> addresses = workspace.addresses();
    addresses.push_back(reinterpret_cast<int64_t>(this));
    addresses.push_back(reinterpret_cast<int64_t>(cache.layer(0).keys));
    workspace.graphs().run(*device_, {placed_rows, context}, std::move(addresses), work);
  } else {
    work();
  }
  return hidden.row_range(0, rows);
}

void Model::logits(MatrixView<const float> hidden, MatrixView<float> out, Workspace& workspace) const {
  const StepContext step{device_, &config_, nullptr, false, &workspace};
  norm_linear(step, hidden, final_norm_, *lm_head_, out);
}

std::vector<std::pair<std::string, LinearInfo>> Model::linear_infos() const {
  std::vector<std::pair<std::string, LinearInfo>> infos;
  for (size_t i = 0; i < layers_.size(); ++i) {
    for (const LayerInput input : kLayerInputs) {
      infos.emplace_back(layer_prefix(static_cast<int64_t>(i)) + name_of(input),
                         layers_[i].linear(input).info(*device_));
    }
  }
  infos.emplace_back("lm_head", lm_head_->info(*device_));
  return infos;
}

int64_t Model::weight_bytes() const {
  int64_t bytes = embedding_.elements() * static_cast<int64_t>(size_of(embedding_.dtype));
  for (const auto& [name, info] : linear_infos()) {
    if (name != "lm_head" || !lm_head_shares_embedding_) bytes += info.bytes;
  }
  return bytes + static_cast<int64_t>(sizeof(float)) * vector_elements();
}

int64_t Model::weight_count() const {
  int64_t count = embedding_.elements();
  for (const auto& [name, info] : linear_infos()) {
    if (name != "lm_head" || !lm_head_shares_embedding_) count += info.weights;
  }
  return count + vector_elements();
}

int64_t Model::vector_elements() const {
  auto count = static_cast<int64_t>(final_norm_.size());
  for (const DecoderLayer& layer : layers_) {
    for (const auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.q_norm, &layer.k_norm}) {
      count += static_cast<int64_t>(norm->size());
    }
    for (const auto& bias : layer.biases) count += static_cast<int64_t>(bias.size());
  }
  return count;
}

}  // namespace atom
