#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace atom {

/// The shape of a decoder of the Llama family.
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
  bool tied_embeddings = false;

  int64_t q_size() const { return n_heads * head_dim; }
  int64_t kv_size() const { return n_kv_heads * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }

  /// Reads a Hugging Face config.json. Throws Error naming `source` and the field for what is missing, out of
  /// range, or changes the mathematics and is not supported (biases, RoPE scaling, another activation or
  /// architecture).
  static ModelConfig from_json(const nlohmann::ordered_json& json, const std::string& source);
};

}  // namespace atom
