#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atom {

struct ModelConfig;

/// How RoPE's frequencies are changed for contexts beyond those of the training. The fields are those of
/// Hugging Face; each kind reads its own.
struct RopeScaling {
  enum class Kind : uint8_t {
    none,
    /// Every frequency divided by `factor` (Chen et al. 2023).
    linear,
    /// Low frequencies divided by `factor`, high ones kept, those between interpolated (Llama 3.1).
    llama3,
    /// As llama3 by another ramp, and queries and keys scaled by `attention_factor` (YaRN, Peng et al. 2023).
    yarn,
    /// Frequency i divided by factors[i]: what GGUF files keep in rope_freqs.weight. Not of Hugging Face.
    frequency_factors,
  };
  Kind kind = Kind::none;
  double factor = 1;
  double original_positions = 0;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  /// cos and sin are multiplied by it.
  double attention_factor = 1;
  std::vector<double> factors;  // [head_dim / 2]
};

/// "default", "linear", "llama3", "yarn", "frequency_factors".
std::string name_of(RopeScaling::Kind kind);

/// Reads rope_theta, rope_scaling and rope_parameters of a config.json into config.rope_theta and
/// config.rope_scaling; head_dim and max_positions are there already. Notations of transformers 4
/// (rope_theta, and rope_scaling with "rope_type" or "type") and 5 (rope_parameters). Throws Error naming
/// `source` and the field: for another kind, an unknown, missing or useless parameter, or one that is out of
/// range.
void read_rope(const nlohmann::ordered_json& json, const std::string& source, ModelConfig& config);

/// Radians per position of each pair of channels, [head_dim / 2], rounded to float as the reference
/// implementation has it: angles are products of floats.
std::vector<float> rope_frequencies(const ModelConfig& config);

}  // namespace atom
