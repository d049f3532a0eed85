#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/packed.h"
#include "kvcache/paged_cache.h"
#include "model/config.h"
#include "model/decoder_layer.h"

namespace atom {

/// How the layers' input `input` of so many channels is quantized.
ActivationSpec activation_spec_of(const QuantizationConfig& quantization, int64_t channels, LayerInput input);

/// How the input of an 8-bit lm_head is quantized: every channel INT8, one scale per token.
ActivationSpec lm_head_activation_spec(int64_t hidden);

/// A decoder-only language model of one of the families of ModelConfig, at any precision of its linear
/// layers.
///
/// Immutable once loaded: threads may share it, each with a Workspace of its own.
class Model {
 public:
  /// Loads every tensor. Throws Error naming file and tensor for what is missing, superfluous (packed
  /// checkpoints), of the wrong shape or type, or not finite. `device` must outlive the model.
  static std::unique_ptr<Model> load(const Checkpoint& checkpoint, const DeviceContext& device);

  /// The same without the values of what is in full precision: a model to ask about, not to run. In a moment,
  /// however large the checkpoint, unless it is a packed one.
  static std::unique_ptr<Model> outline(const Checkpoint& checkpoint, const DeviceContext& device);

  /// A model of random weights, made in the device's memory: for measuring. `quantization` none: FP16; its
  /// calibration is not looked at. Throws Error where the shape does not fit its groups.
  static std::unique_ptr<Model> random(const ModelConfig& config,
                                       const std::optional<QuantizationConfig>& quantization,
                                       const DeviceContext& device, uint64_t seed = 0);

  const ModelConfig& config() const { return config_; }
  /// The settings of a packed checkpoint; empty for a full-precision one.
  const std::optional<QuantizationConfig>& quantization() const { return quantization_; }
  const DeviceContext& device() const { return *device_; }
  /// The cache format that the checkpoint is meant for: f16 for full precision.
  KvFormat kv_format() const;
  KvShape kv_shape() const { return {config_.n_layers, config_.n_kv_heads, config_.head_dim}; }

  /// Runs all the layers: appends the batch to the cache and returns the residual stream after the last
  /// layer, [tokens, hidden], in the workspace (valid until its next use). Throws Error for a token or
  /// position out of range.
  MatrixView<const float> forward(const Batch& batch, PagedKvCache& cache, Workspace& workspace) const;

  /// logits [rows, vocab] of rows of `forward`'s result: final norm and lm_head.
  void logits(MatrixView<const float> hidden, MatrixView<float> out, Workspace& workspace) const;

  /// What `atom inspect` lists: "model.layers.0.qkv", ..., "lm_head".
  std::vector<std::pair<std::string, LinearInfo>> linear_infos() const;
  /// Bytes of the weights as stored canonically: linear layers, embedding, norms, biases. A tied embedding
  /// counts once.
  int64_t weight_bytes() const;
  /// Weights of all these, a tied embedding counted once.
  int64_t weight_count() const;

 private:
  Model() = default;
  static std::unique_ptr<Model> load(const Checkpoint& checkpoint, const DeviceContext& device,
                                     bool shapes_only);
  /// Of norms and biases.
  int64_t vector_elements() const;
  /// Throws Error where `quantization_` asks for what the shape does not allow.
  void check_quantization(const std::string& source) const;

  ModelConfig config_;
  std::optional<QuantizationConfig> quantization_;
  const DeviceContext* device_ = nullptr;
  Tensor embedding_;  // [vocab, hidden]
  std::vector<DecoderLayer> layers_;
  Buffer<float> final_norm_;  // [hidden]
  std::unique_ptr<Linear> lm_head_;
  bool lm_head_shares_embedding_ = false;
};

}  // namespace atom
