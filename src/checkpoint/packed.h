#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "tensor/tensor.h"

/// The packed Atom format (docs/format.md): a Hugging Face directory whose config.json has a
/// `quantization_config` and whose safetensors file holds the linear layers of the decoder in canonical
/// low-bit tensors.
namespace atom {

/// What is written. Version 1 had no `scales`: they were FP16.
inline constexpr int kPackedVersion = 2;

/// The files of a packed checkpoint.
inline constexpr std::array<std::string_view, 4> kPackedFiles = {"config.json", "model.safetensors",
                                                                 "tokenizer.json", "tokenizer_config.json"};

/// The inputs of a decoder layer that are quantized, and which linear layers read each.
enum class LayerInput : uint8_t { qkv, o, gate_up, down };
inline constexpr std::array kLayerInputs = {LayerInput::qkv, LayerInput::o, LayerInput::gate_up,
                                            LayerInput::down};

/// "qkv", "o", "gate_up", "down".
std::string name_of(LayerInput input);

/// Hugging Face names, without the layer's prefix, of the linear layers that read `input`, in the order in
/// which their rows are fused: self_attn.q_proj, self_attn.k_proj, ...
std::vector<std::string> linears_of(LayerInput input);

/// "model.layers.N."
std::string layer_prefix(int64_t layer);

/// Whether a config.json has a quantization_config; JSON null is none.
inline bool is_quantized(const nlohmann::ordered_json& config) {
  const auto it = config.find("quantization_config");
  return it != config.end() && !it->is_null();
}

/// `quantization_config` of config.json: every setting that made the checkpoint.
struct QuantizationConfig {
  std::string recipe = "atom";
  int weight_bits = 4;
  /// Of the normal channels; 16: not quantized (and no outliers).
  int activation_bits = 4;
  /// Channels that share a scale; 0: one scale for all normal channels of a row or token.
  int64_t group_size = 128;
  /// All scales of a row or token are integer multiples of one number; otherwise each is any FP16.
  bool integer_scales = false;
  /// Outlier channels of each input, indexed by LayerInput.
  std::array<int64_t, 4> outlier_channels{};
  /// 8: INT8; 16: FP16.
  int outlier_bits = 8;
  /// FP8 (E4M3) instead of INT8 outliers, which are then all channels: for random models, no checkpoint has
  /// it.
  bool fp8 = false;
  /// Bits of the KV cache that the checkpoint is meant for: 16, 8 or 4.
  int kv_cache_bits = 4;
  /// Queries and keys are rotated by a Hadamard matrix per head after RoPE.
  bool rotate_keys = false;
  /// 16: embedding's type; 8: INT8 per row and token.
  int lm_head_bits = 16;
  /// How it was calibrated, for the record; not read by the kernels.
  nlohmann::ordered_json calibration = nlohmann::ordered_json::object();

  nlohmann::ordered_json to_json() const;
  /// Strict: an unknown field, a missing one or a value out of range is an Error that names `source` and the
  /// field.
  static QuantizationConfig from_json(const nlohmann::ordered_json& json, const std::string& source);
};

/// The names of the tensors of one packed linear layer `prefix` (such as "model.layers.0.mlp.up_proj").
struct PackedNames {
  std::string values;          // U8  [n, ceil(k_normal / 2)]
  std::string scales;          // F16 [n, groups]
  std::string outliers;        // I8  [n, n_outlier] (outlier_bits 8)
  std::string outlier_scales;  // F16 [n]            (outlier_bits 8)
  std::string outliers_fp16;   // F16 [n, n_outlier] (outlier_bits 16)
  explicit PackedNames(const std::string& prefix);
};

/// The names of the tensors that describe one quantized input of a layer.
struct PackedInputNames {
  std::string permutation;      // I32 [k]: channel of the original model that comes i-th
  std::string activation_clip;  // F32 [1]
  PackedInputNames(int64_t layer, LayerInput input);
};

}  // namespace atom
