#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "kernels/integer_scales.h"
#include "tensor/half.h"

namespace atom {
namespace {

std::string text_of(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Whether every value is finite and within what FP16 holds: packed checkpoints, FP16 caches and activations
/// have no room for others. The bytes need not be aligned.
bool fits_half(const Tensor& tensor) {
  const std::byte* bytes = tensor.bytes.data();
  const int64_t n = tensor.elements();
  bool fits = true;
  if (tensor.dtype == DType::f32) {
    constexpr uint32_t kLargest = 0x477FE000;  // 65504
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, bytes + 4 * i, 4);
      fits &= (bits & 0x7FFFFFFF) <= kLargest;
    }
  } else {
    const uint16_t largest = tensor.dtype == DType::f16 ? 0x7BFF : 0x477F;  // 65504, 65280
    for (int64_t i = 0; i < n; ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, bytes + 2 * i, 2);
      fits &= (bits & 0x7FFF) <= largest;
    }
  }
  return fits;
}

/// The name in errors: that of the file, and behind it Hugging Face's where that is another.
std::string label_of(const Checkpoint& checkpoint, const std::string& name) {
  const std::string own = checkpoint.name_in_file(name);
  return own == name ? name : fmt::format("{} ({})", own, name);
}

void require_half(const Checkpoint& checkpoint, const std::string& name, const Tensor& tensor) {
  require(fits_half(tensor),
          "{}: tensor {}: has values that are NaN or infinite, or beyond the 65504 of FP16",
          checkpoint.path().string(), label_of(checkpoint, name));
}

bool ends_with(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

void require_tensor(const Checkpoint& checkpoint, const std::string& name) {
  require(checkpoint.contains(name), "{}: tensor {}: missing", checkpoint.path().string(), name);
}

/// Throws Error naming the first tensor that is not among `names`.
void refuse_others(const Checkpoint& checkpoint, const std::set<std::string>& names, bool tied_embeddings) {
  for (const std::string& name : checkpoint.names()) {
    if (names.count(name) != 0) continue;
    if (tied_embeddings && name == "lm_head.weight") continue;
    if (ends_with(name, ".rotary_emb.inv_freq")) continue;
    fail("{}: tensor {}: not a tensor of this architecture", checkpoint.path().string(), printable(name));
  }
}

template <class T>
Buffer<T> copy_of(const Tensor& tensor) {
  Buffer<T> out(tensor.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

}  // namespace

LinearShape shape_of(const ModelConfig& config, LayerInput input) {
  switch (input) {
    case LayerInput::qkv:
      return {{config.q_size(), config.kv_size(), config.kv_size()}, config.hidden};
    case LayerInput::o:
      return {{config.hidden}, config.q_size()};
    case LayerInput::gate_up:
      return {{config.intermediate, config.intermediate}, config.hidden};
    case LayerInput::down:
      return {{config.hidden}, config.intermediate};
  }
  return {};
}

bool has_bias(const ModelConfig& config, LayerInput input) {
  switch (input) {
    case LayerInput::qkv:
      return config.qkv_bias;
    case LayerInput::o:
      return config.o_bias;
    case LayerInput::gate_up:
    case LayerInput::down:
      return config.mlp_bias;
  }
  return false;
}

std::vector<LayerVector> norms_of(const ModelConfig& config, int64_t layer) {
  const std::string prefix = layer_prefix(layer);
  std::vector<LayerVector> norms = {{prefix + "input_layernorm.weight", config.hidden},
                                    {prefix + "post_attention_layernorm.weight", config.hidden}};
  if (config.head_norms) {
    norms.push_back({prefix + "self_attn.q_norm.weight", config.head_dim});
    norms.push_back({prefix + "self_attn.k_norm.weight", config.head_dim});
  }
  return norms;
}

std::vector<LayerVector> biases_of(const ModelConfig& config, int64_t layer, LayerInput input) {
  std::vector<LayerVector> biases;
  if (!has_bias(config, input)) return biases;
  const LinearShape shape = shape_of(config, input);
  const auto linears = linears_of(input);
  for (size_t i = 0; i < linears.size(); ++i) {
    biases.push_back({layer_prefix(layer) + linears[i] + ".bias", shape.rows[i]});
  }
  return biases;
}

void read_layer_vectors(WeightReader& reader, const ModelConfig& config, const DeviceContext& device,
                        int64_t layer, DecoderLayer& out) {
  Buffer<float>* const norms[] = {&out.attention_norm, &out.mlp_norm, &out.q_norm, &out.k_norm};
  size_t next = 0;
  for (const LayerVector& norm : norms_of(config, layer)) {
    *norms[next++] = reader.vector(norm.name, norm.size, device.memory);
  }
  for (const LayerInput input : kLayerInputs) {
    std::vector<float> stacked;
    for (const LayerVector& bias : biases_of(config, layer, input)) {
      const Buffer<float> values = reader.vector(bias.name, bias.size);
      stacked.insert(stacked.end(), values.begin(), values.end());
    }
    out.biases[static_cast<size_t>(input)] = Buffer<float>::copy_of(stacked, device.memory);
  }
  out.window = config.window_of(layer);
}

void check_values(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (checkpoint.format() == "random") return;
  const std::string file = checkpoint.path().string();
  for (const std::string& name : checkpoint.names()) {
    const TensorInfo info = checkpoint.info(name);
    if (info.type != name_of(info.dtype)) {
      require(checkpoint.has_finite_scales(name), "{}: tensor {}: has scales that are NaN or infinite", file,
              label_of(checkpoint, name));
    } else if (is_float(info.dtype)) {
      require_half(checkpoint, name, checkpoint.load(name));
    }
  }
  if (!config.tied_embeddings || !checkpoint.contains("lm_head.weight")) return;
  const Tensor head = checkpoint.load("lm_head.weight");
  const Tensor embedding = checkpoint.load("model.embed_tokens.weight");
  const bool same =
      head.dtype == embedding.dtype &&
      std::equal(head.bytes.begin(), head.bytes.end(), embedding.bytes.begin(), embedding.bytes.end());
  require(same,
          "{}: tensor lm_head.weight: differs from model.embed_tokens.weight, but the config says "
          "tie_word_embeddings true",
          file);
}

TensorInfo WeightReader::expect(const std::string& name, const std::vector<int64_t>& shape) {
  require_tensor(checkpoint_, name);
  const std::string file = checkpoint_.path().string();
  TensorInfo info = checkpoint_.info(name);
  require(info.shape == shape, "{}: tensor {}: expected shape {}, found {}", file,
          label_of(checkpoint_, name), text_of(shape), text_of(info.shape));
  read_.insert(name);
  return info;
}

Tensor WeightReader::load(const std::string& name, const std::vector<int64_t>& shape) {
  expect(name, shape);
  return checkpoint_.load(name);
}

Tensor WeightReader::load(const std::string& name, const std::vector<int64_t>& shape, DType dtype) {
  Tensor tensor = load(name, shape);
  require(tensor.dtype == dtype, "{}: tensor {}: expected type {}, found {}", checkpoint_.path().string(),
          name, name_of(dtype), name_of(tensor.dtype));
  return tensor;
}

Tensor WeightReader::floats(const std::string& name, const std::vector<int64_t>& shape) {
  const TensorInfo info = expect(name, shape);
  Tensor tensor = shapes_only_ ? Tensor{info.dtype, shape, {}, nullptr} : checkpoint_.load(name);
  const std::string file = checkpoint_.path().string();
  require(is_float(tensor.dtype), "{}: tensor {}: expected a float type, found {}", file,
          label_of(checkpoint_, name), name_of(tensor.dtype));
  if (!shapes_only_) require_half(checkpoint_, name, tensor);
  return tensor;
}

Buffer<float> WeightReader::vector(const std::string& name, int64_t size, Memory* memory) {
  Buffer<float> out(static_cast<size_t>(size));
  const Tensor tensor = floats(name, {size});
  if (!shapes_only_) to_float(tensor, out.span());
  return memory == nullptr ? std::move(out) : Buffer<float>::copy_of(out.span(), memory);
}

Tensor WeightReader::stacked(const std::vector<std::string>& names, const std::vector<int64_t>& rows,
                             int64_t cols) {
  std::vector<Tensor> parts;
  int64_t total = 0;
  bool same_type = true;
  for (size_t i = 0; i < names.size(); ++i) {
    parts.push_back(floats(names[i], {rows[i], cols}));
    same_type = same_type && parts[i].dtype == parts[0].dtype;
    total += rows[i];
  }
  if (parts.size() == 1) return parts[0];
  Tensor out;
  out.dtype = same_type ? parts[0].dtype : DType::f32;
  out.shape = {total, cols};
  if (shapes_only_) return out;
  const size_t element = size_of(out.dtype);
  auto storage = std::make_shared<Buffer<std::byte>>(static_cast<size_t>(total * cols) * element);
  size_t at = 0;
  for (const Tensor& part : parts) {
    const auto elements = static_cast<size_t>(part.elements());
    if (same_type) {
      std::memcpy(storage->data() + at, part.bytes.data(), part.bytes.size());
    } else {
      to_float(part, {reinterpret_cast<float*>(storage->data() + at), elements});
    }
    at += elements * element;
  }
  out.bytes = storage->span();
  out.owner = storage;
  return out;
}

LowBitStorage WeightReader::low_bit(const std::string& prefix, int64_t rows, const ChannelLayout& layout) {
  const PackedNames names(prefix);
  const std::string file = checkpoint_.path().string();
  const auto halves = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const Tensor tensor = load(name, shape, DType::f16);
    require(fits_half(tensor), "{}: tensor {}: has values that are NaN or infinite", file, name);
    return copy_of<uint16_t>(tensor);
  };
  const auto scales_of = [&](const std::string& name, const std::vector<int64_t>& shape) {
    auto scales = halves(name, shape);
    const bool negative =
        std::any_of(scales.begin(), scales.end(), [](uint16_t bits) { return bits > 0x8000; });
    require(!negative, "{}: tensor {}: has negative scales", file, name);
    return scales;
  };
  LowBitStorage out;
  out.n = rows;
  out.layout = layout;
  if (layout.k_normal() > 0) {
    out.values = copy_of<uint8_t>(load(names.values, {rows, (layout.k_normal() + 1) / 2}, DType::u8));
    out.scales = scales_of(names.scales, {rows, layout.groups()});
  }
  if (layout.n_outlier > 0 && layout.outlier_type == OutlierType::int8) {
    out.outliers = copy_of<int8_t>(load(names.outliers, {rows, layout.n_outlier}, DType::i8));
    const bool bounded = std::find(out.outliers.begin(), out.outliers.end(), INT8_MIN) == out.outliers.end();
    require(bounded, "{}: tensor {}: has values of -128, expected -127 to 127", file, names.outliers);
    out.outlier_scales = scales_of(names.outlier_scales, {rows});
  } else if (layout.n_outlier > 0) {
    out.outliers_fp16 = halves(names.outliers_fp16, {rows, layout.n_outlier});
  }
  for (int64_t row = 0; layout.integer_scales && row < rows; ++row) {
    const uint16_t outlier =
        layout.n_outlier > 0 ? out.outlier_scales[static_cast<size_t>(row)] : uint16_t{0};
    require(integer_scales::are_integer(out.scales.data() + row * layout.groups(), layout.groups(), outlier),
            "{}: tensor {}: the scales of row {} are not multiples of one number, up to {} (outliers: {})",
            file, names.scales, row, integer_scales::kMostOfGroup, integer_scales::kMostOfOutlierWeights);
  }
  return out;
}

std::vector<int32_t> WeightReader::permutation(const std::string& name, int64_t size) {
  const Tensor tensor = load(name, {size}, DType::i32);
  std::vector<int32_t> out(static_cast<size_t>(size));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  std::vector<bool> seen(out.size(), false);
  for (const int32_t channel : out) {
    const bool fresh = channel >= 0 && channel < size && !seen[static_cast<size_t>(channel)];
    require(fresh, "{}: tensor {}: not a permutation of {} channels: {} is repeated or out of range",
            checkpoint_.path().string(), name, size, channel);
    seen[static_cast<size_t>(channel)] = true;
  }
  return out;
}

float WeightReader::clip(const std::string& name) {
  const Tensor tensor = load(name, {1}, DType::f32);
  float value = 0;
  to_float(tensor, {&value, 1});
  require(value > 0.0f && value <= 1.0f, "{}: tensor {}: expected a number in (0, 1], found {}",
          checkpoint_.path().string(), name, value);
  return value;
}

void WeightReader::refuse_unread(bool tied_embeddings) const {
  refuse_others(checkpoint_, read_, tied_embeddings);
}

void check_tensor_names(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::set<std::string> known = {"model.embed_tokens.weight", "model.norm.weight"};
  if (!config.tied_embeddings) known.insert("lm_head.weight");
  // Layers beyond the number of tensors are missing anyway: a false count takes no memory.
  const auto layers = std::min(config.n_layers, static_cast<int64_t>(checkpoint.names().size()));
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = layer_prefix(i);
    for (const LayerVector& norm : norms_of(config, i)) known.insert(norm.name);
    for (const LayerInput input : kLayerInputs) {
      for (const std::string& linear : linears_of(input)) known.insert(prefix + linear + ".weight");
      for (const LayerVector& bias : biases_of(config, i, input)) known.insert(bias.name);
    }
  }
  refuse_others(checkpoint, known, config.tied_embeddings);
  for (const std::string& name : known) require_tensor(checkpoint, name);
}

}  // namespace atom
