#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_writer.h"
#include "model/config.h"
#include "model/weights.h"
#include "quant/layer_quantizer.h"
#include "quant/recipe.h"

namespace atom {

/// Writes the files of a packed checkpoint (docs/format.md), layer by layer as they are quantized.
class PackedOutput {
 public:
  /// Writes config.json and, where there is a tokenizer, tokenizer.json and tokenizer_config.json, and begins
  /// model.safetensors, in the directory `out`.
  PackedOutput(const Checkpoint& checkpoint, const ModelConfig& config, const Recipe& recipe,
               const nlohmann::ordered_json& calibration, const std::filesystem::path& out);

  /// Embedding, final norm and lm_head: they come first.
  void write_shared(WeightReader& reader, const DeviceContext& device);
  /// Layers, in ascending order.
  void write_layer(WeightReader& reader, int64_t index, const QuantizedLayer& layer);
  void finish();

 private:
  void add_layer_items(int64_t index);
  void add_low_bit_items(const std::string& prefix, int64_t rows, const ChannelLayout& layout);
  void add_float_item(const std::string& name, const std::vector<int64_t>& shape);
  void write_low_bit(const std::string& prefix, const LowBitStorage& storage, int64_t first_row,
                     int64_t rows);
  void write_floats(WeightReader& reader, const std::string& name, const std::vector<int64_t>& shape);
  /// A vector whose i-th element is the order[i]-th of the original.
  void write_reordered(WeightReader& reader, const LayerVector& vector, const std::vector<int32_t>& order);

  const Checkpoint& checkpoint_;
  ModelConfig config_;
  Recipe recipe_;
  std::vector<SafetensorsItem> items_;
  std::optional<SafetensorsWriter> writer_;
};

/// The type in which a tensor that stays in full precision is kept: F16 and BF16 as they are, F32
/// (dequantized GGUF blocks, too) as F16.
DType kept_type(DType source);

/// The channels of one input of the layer.
ChannelLayout layout_of(const ModelConfig& config, const Recipe& recipe, LayerInput input);

}  // namespace atom
