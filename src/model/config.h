#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/config_rope.h"

namespace atom {

/// The shape of a decoder: Llama, Mistral, Qwen2 or Qwen3.
struct ModelConfig {
  std::string model_type;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;
  float rms_norm_eps = 0;
  float rope_theta = 0;
  RopeScaling rope_scaling;
  bool tied_embeddings = false;
  /// Whether q, k and v; o; gate, up and down have a bias.
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  /// Whether every head of q and k is normalized before RoPE.
  bool head_norms = false;
  /// Of the layers that have a window: a token sees itself and `sliding_window` - 1 tokens before it. 0:
  /// none.
  int64_t sliding_window = 0;
  /// Layers from this one on have the window, unless `layer_has_window` says it of each.
  int64_t first_window_layer = 0;
  std::vector<bool> layer_has_window;

  int64_t q_size() const { return n_heads * head_dim; }
  int64_t kv_size() const { return n_kv_heads * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
  /// Tokens that a token sees in a layer; 0: all before it.
  int64_t window_of(int64_t layer) const;
  /// Layers with a window.
  int64_t window_layers() const;

  /// Reads a Hugging Face config.json with the defaults that transformers has for its model_type;
  /// docs/models.md lists the fields. Throws Error naming `source` and the field for what is missing or out
  /// of range, and for every field that is neither supported nor known to leave the mathematics alone, unless
  /// it is switched off (null, false or empty).
  static ModelConfig from_json(const nlohmann::ordered_json& json, const std::string& source);
};

}  // namespace atom
