// Reads bytes as a model, packed or not: config.json, a zero byte, model.safetensors. Only atom::Error may
// come out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/json.h"
#include "checkpoint/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

namespace {

/// A directory with a config.json and one safetensors file, in memory.
class MemoryCheckpoint : public atom::Checkpoint {
 public:
  MemoryCheckpoint(std::string_view config, std::span<const std::byte> tensors)
      : Checkpoint("fuzz"),
        config_(atom::parse_json(config, "config.json")),
        tensors_(tensors, "fuzz.safetensors") {
    atom::require(config_.is_object(), "config.json: expected an object");
  }

  std::string format() const override { return "safetensors"; }
  std::vector<std::filesystem::path> files() const override { return {"fuzz.safetensors"}; }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const atom::SafetensorsEntry& entry : tensors_.entries()) names.push_back(entry.name);
    return names;
  }
  bool contains(const std::string& name) const override { return tensors_.find(name) != nullptr; }
  atom::TensorInfo info(const std::string& name) const override {
    const atom::SafetensorsEntry& entry = tensors_.get(name);
    return {std::string(atom::name_of(entry.dtype)), entry.shape, entry.bytes.size(), entry.dtype};
  }
  atom::Tensor load(const std::string& name) const override { return tensors_.load(name); }
  void read_float(const std::string& name, std::span<float> out) const override {
    tensors_.read_float(name, out);
  }
  const nlohmann::ordered_json& tokenizer_json() const override { atom::fail("no tokenizer"); }
  const nlohmann::ordered_json& tokenizer_config() const override { return empty_; }

 private:
  nlohmann::ordered_json config_;
  nlohmann::ordered_json empty_ = nlohmann::ordered_json::object();
  atom::SafetensorsFile tensors_;
};

/// Reads what Model::load reads, in its order.
void read_model(const atom::Checkpoint& checkpoint) {
  using atom::LayerInput;
  const auto config = atom::ModelConfig::from_json(checkpoint.config(), "config");
  const auto& json = checkpoint.config();
  const bool packed = json.contains("quantization_config");
  atom::QuantizationConfig settings;
  if (packed) settings = atom::QuantizationConfig::from_json(json["quantization_config"], "config");

  atom::WeightReader reader(checkpoint);
  (void)reader.floats("model.embed_tokens.weight", {config.vocab, config.hidden});
  (void)reader.vector("model.norm.weight", config.hidden);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const std::string prefix = atom::layer_prefix(layer);
    (void)reader.vector(prefix + "input_layernorm.weight", config.hidden);
    (void)reader.vector(prefix + "post_attention_layernorm.weight", config.hidden);
    for (const LayerInput input : atom::kLayerInputs) {
      const atom::LinearShape shape = atom::shape_of(config, input);
      const auto linears = atom::linears_of(input);
      if (!packed) {
        std::vector<std::string> weights;
        for (const auto& linear : linears) weights.push_back(prefix + linear + ".weight");
        (void)reader.stacked(weights, shape.rows, shape.cols);
        continue;
      }
      const atom::PackedInputNames names(layer, input);
      (void)reader.clip(names.activation_clip);
      (void)reader.permutation(names.permutation, shape.cols);
      atom::ChannelLayout layout;
      layout.k = shape.cols;
      layout.n_outlier = settings.outlier_channels[static_cast<size_t>(input)];
      atom::require(layout.n_outlier <= layout.k, "more outliers than channels");
      layout.group = settings.group_size > 0 ? settings.group_size : std::max<int64_t>(layout.k_normal(), 1);
      layout.outlier_type = settings.outlier_bits == 8 ? atom::OutlierType::int8 : atom::OutlierType::fp16;
      layout.integer_scales = settings.integer_scales && layout.k_normal() > 0;
      for (size_t i = 0; i < linears.size(); ++i)
        (void)reader.low_bit(prefix + linears[i], shape.rows[i], layout);
    }
  }
  if (packed) reader.refuse_unread(config.tied_embeddings);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), size);
  const size_t begin = std::min(split + 1, size);
  const std::vector<std::byte> tensors(reinterpret_cast<const std::byte*>(data) + begin,
                                       reinterpret_cast<const std::byte*>(data) + size);
  try {
    read_model(MemoryCheckpoint(input.substr(0, split), tensors));
  } catch (const atom::Error&) {
  }
  return 0;
}
