#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atom {

/// The `quantization_config` of a Hugging Face checkpoint of 4-bit weights made by GPTQ or AWQ.
struct HfInt4Config {
  enum class Method : uint8_t { gptq, awq };
  Method method = Method::gptq;
  /// Inputs that share a scale; -1: all of them.
  int64_t group_size = 128;
  /// GPTQ's first format stores zero points minus one.
  bool zeros_minus_one = false;
  /// Inputs were quantized in an order of their own, which g_idx says.
  bool own_order = false;
  /// All zero points are 8.
  bool symmetric = false;
  /// Parts of the names of modules that are not quantized.
  std::vector<std::string> modules_to_not_convert;

  /// Whether a config.json says that its weights are of this kind.
  static bool is_in(const nlohmann::ordered_json& config);

  /// Reads config["quantization_config"]. Throws Error naming `source` and the field for what is not
  /// supported (other widths, layouts for certain kernels, settings per module) and for a field that is not
  /// known.
  static HfInt4Config from_json(const nlohmann::ordered_json& config, const std::string& source);
};

}  // namespace atom
