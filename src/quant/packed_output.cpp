#include "quant/packed_output.h"

#include <cstring>
#include <utility>

#include "base/atomic_output.h"
#include "base/error.h"
#include "kernels/numerics.h"
#include "model/model.h"
#include "quant/rounding.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

Json packed_config(const Checkpoint& checkpoint, const ModelConfig& config, const Recipe& recipe,
                   const Json& calibration) {
  QuantizationConfig quantization;
  quantization.recipe = recipe.name;
  quantization.activation_bits = recipe.activation_bits;
  quantization.group_size = recipe.group_size;
  quantization.integer_scales = recipe.has_integer_scales();
  for (const LayerInput input : kLayerInputs) {
    quantization.outlier_channels[static_cast<size_t>(input)] = layout_of(config, recipe, input).n_outlier;
  }
  quantization.outlier_bits = recipe.outlier_bits;
  quantization.kv_cache_bits = recipe.kv_cache_bits;
  quantization.rotate_keys = recipe.rotate_keys;
  quantization.lm_head_bits = recipe.lm_head_bits;
  quantization.calibration = calibration;
  Json json = checkpoint.config();
  json["quantization_config"] = quantization.to_json();
  return json;
}

template <class T>
std::span<const T> rows_of(const Buffer<T>& buffer, int64_t total_rows, int64_t first, int64_t rows) {
  const size_t width = buffer.size() / static_cast<size_t>(total_rows);
  return buffer.span().subspan(static_cast<size_t>(first) * width, static_cast<size_t>(rows) * width);
}

}  // namespace

DType kept_type(DType source) {
  return source == DType::f32 ? DType::f16 : source;
}

ChannelLayout layout_of(const ModelConfig& config, const Recipe& recipe, LayerInput input) {
  return recipe.layout(shape_of(config, input).cols, name_of(input));
}

PackedOutput::PackedOutput(const Checkpoint& checkpoint, const ModelConfig& config, const Recipe& recipe,
                           const Json& calibration, const std::filesystem::path& out)
    : checkpoint_(checkpoint), config_(config), recipe_(recipe) {
  write_file(out / "config.json", packed_config(checkpoint, config, recipe, calibration).dump(2) + "\n");
  if (checkpoint.has_tokenizer()) {
    write_file(out / "tokenizer.json", checkpoint.tokenizer_json().dump() + "\n");
    write_file(out / "tokenizer_config.json", checkpoint.tokenizer_config().dump(2) + "\n");
  }

  // The embedding comes first, where it is aligned: it is used in place.
  add_float_item("model.embed_tokens.weight", {config.vocab, config.hidden});
  add_float_item("model.norm.weight", {config.hidden});
  if (recipe.lm_head_bits == 8) {
    add_low_bit_items("lm_head", config.vocab, lm_head_activation_spec(config.hidden).layout);
  } else if (!config.tied_embeddings) {
    add_float_item("lm_head.weight", {config.vocab, config.hidden});
  }
  for (int64_t i = 0; i < config.n_layers; ++i) add_layer_items(i);
  writer_.emplace(out / "model.safetensors", items_, std::map<std::string, std::string>{{"format", "atom"}});
}

void PackedOutput::add_layer_items(int64_t index) {
  for (const LayerVector& norm : norms_of(config_, index)) add_float_item(norm.name, {norm.size});
  for (const LayerInput input : kLayerInputs) {
    const LinearShape shape = shape_of(config_, input);
    const PackedInputNames names(index, input);
    items_.push_back({names.permutation, DType::i32, {shape.cols}});
    items_.push_back({names.activation_clip, DType::f32, {1}});
    const auto linears = linears_of(input);
    for (size_t i = 0; i < linears.size(); ++i) {
      add_low_bit_items(layer_prefix(index) + linears[i], shape.rows[i], layout_of(config_, recipe_, input));
    }
    for (const LayerVector& bias : biases_of(config_, index, input)) add_float_item(bias.name, {bias.size});
  }
}

void PackedOutput::add_low_bit_items(const std::string& prefix, int64_t rows, const ChannelLayout& layout) {
  const PackedNames names(prefix);
  if (layout.k_normal() > 0) {
    items_.push_back({names.values, DType::u8, {rows, (layout.k_normal() + 1) / 2}});
    items_.push_back({names.scales, DType::f16, {rows, layout.groups()}});
  }
  if (layout.n_outlier == 0) return;
  if (layout.outlier_type == OutlierType::int8) {
    items_.push_back({names.outliers, DType::i8, {rows, layout.n_outlier}});
    items_.push_back({names.outlier_scales, DType::f16, {rows}});
  } else {
    items_.push_back({names.outliers_fp16, DType::f16, {rows, layout.n_outlier}});
  }
}

void PackedOutput::add_float_item(const std::string& name, const std::vector<int64_t>& shape) {
  // Norms and biases are small, and act on everything: they keep their type. Matrices that were F32 become
  // F16.
  const std::string type = checkpoint_.contains(name) ? checkpoint_.info(name).type : "F32";
  DType kept = type == "BF16" ? DType::bf16 : DType::f16;
  if (shape.size() == 1) kept = type == "F16" ? DType::f16 : type == "BF16" ? DType::bf16 : DType::f32;
  items_.push_back({name, kept, shape});
}

void PackedOutput::write_layer(WeightReader& reader, int64_t index, const QuantizedLayer& layer) {
  for (const LayerVector& norm : norms_of(config_, index)) write_floats(reader, norm.name, {norm.size});
  for (const LayerInput input : kLayerInputs) {
    const QuantizedInput& quantized = layer[static_cast<size_t>(input)];
    const PackedInputNames names(index, input);
    writer_->write(names.permutation, std::span<const int32_t>(quantized.permutation));
    writer_->write(names.activation_clip, std::span<const float>(&quantized.spec.clip, 1));
    const LinearShape shape = shape_of(config_, input);
    const auto linears = linears_of(input);
    int64_t first = 0;
    for (size_t i = 0; i < linears.size(); ++i) {
      write_low_bit(layer_prefix(index) + linears[i], quantized.weight, first, shape.rows[i]);
      first += shape.rows[i];
    }
    // The rows of gate and up are in the order of down's permutation.
    const auto& down_order = layer[static_cast<size_t>(LayerInput::down)].permutation;
    for (const LayerVector& bias : biases_of(config_, index, input)) {
      if (input == LayerInput::gate_up) {
        write_reordered(reader, bias, down_order);
      } else {
        write_floats(reader, bias.name, {bias.size});
      }
    }
  }
}

void PackedOutput::write_low_bit(const std::string& prefix, const LowBitStorage& storage, int64_t first,
                                 int64_t rows) {
  const PackedNames names(prefix);
  const auto write_rows = [&](const std::string& name, const auto& buffer) {
    if (!buffer.empty()) writer_->write(name, rows_of(buffer, storage.n, first, rows));
  };
  write_rows(names.values, storage.values);
  write_rows(names.scales, storage.scales);
  write_rows(names.outliers, storage.outliers);
  write_rows(names.outlier_scales, storage.outlier_scales);
  write_rows(names.outliers_fp16, storage.outliers_fp16);
}

void PackedOutput::write_floats(WeightReader& reader, const std::string& name,
                                const std::vector<int64_t>& shape) {
  const Tensor tensor = reader.floats(name, shape);
  const DType kept = shape.size() == 1 ? tensor.dtype : kept_type(tensor.dtype);
  if (kept == tensor.dtype) {
    writer_->write(name, tensor.bytes);
    return;
  }
  Buffer<float> values(static_cast<size_t>(tensor.elements()));
  to_float(tensor, values.span());
  Buffer<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = float_to_half(numerics::finite_half(values[i]));
  writer_->write(name, std::span<const uint16_t>(halves.span()));
}

void PackedOutput::write_reordered(WeightReader& reader, const LayerVector& vector,
                                   const std::vector<int32_t>& order) {
  const Tensor tensor = reader.floats(vector.name, {vector.size});
  const size_t element = size_of(tensor.dtype);
  Buffer<std::byte> bytes(tensor.bytes.size());
  for (size_t i = 0; i < order.size(); ++i) {
    std::memcpy(bytes.data() + i * element, tensor.bytes.data() + static_cast<size_t>(order[i]) * element,
                element);
  }
  writer_->write(vector.name, std::span<const std::byte>(bytes.span()));
}

void PackedOutput::write_shared(WeightReader& reader, const DeviceContext& device) {
  const std::vector<int64_t> shape = {config_.vocab, config_.hidden};
  write_floats(reader, "model.embed_tokens.weight", shape);
  write_floats(reader, "model.norm.weight", {config_.hidden});
  const std::string head = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  if (recipe_.lm_head_bits == 8) {
    const Tensor tensor = reader.floats(head, shape);
    const Matrix<float> weight = float_columns(device, tensor, nullptr);
    const ScaleChooser chooser(1.0f);
    const ChannelLayout layout = lm_head_activation_spec(config_.hidden).layout;
    write_low_bit("lm_head", round_to_nearest(device, weight.view(), layout, chooser), 0, config_.vocab);
  } else if (!config_.tied_embeddings) {
    write_floats(reader, head, shape);
  }
}

void PackedOutput::finish() {
  writer_->finish();
}

}  // namespace atom
