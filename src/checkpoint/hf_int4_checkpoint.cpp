#include "checkpoint/hf_int4_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace atom {
namespace {

constexpr std::string_view kValues = ".qweight";
constexpr int64_t kPerWord = 8;

std::string text_of(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::span<const int32_t> words_of(const Tensor& tensor) {
  return {tensor.data<int32_t>(), static_cast<size_t>(tensor.elements())};
}

}  // namespace

HfInt4Checkpoint::HfInt4Checkpoint(std::unique_ptr<Checkpoint> base)
    : Checkpoint(base->path()),
      base_(std::move(base)),
      int4_(HfInt4Config::from_json(base_->config(), path().string() + ": config")),
      config_(base_->config()) {
  config_.erase("quantization_config");
  const auto names = base_->names();
  for (const std::string& name : names) {
    if (!name.ends_with(kValues)) continue;
    const std::string prefix = name.substr(0, name.size() - kValues.size());
    const Layer layer = read_layer(prefix);
    for (const char* part : {".qweight", ".qzeros", ".scales"}) hidden_.insert(prefix + part);
    if (layer.has_group_index) hidden_.insert(prefix + ".g_idx");
    if (is_filler(prefix, prefix + ".bias")) hidden_.insert(prefix + ".bias");
    layers_.emplace(prefix + ".weight", layer);
  }
  require(!layers_.empty(), "{}: quantization_config says that weights are quantized, but no tensor \"*{}\"",
          path().string(), kValues);
  for (const std::string& name : names) {
    if (name.ends_with(kValues)) {
      names_.push_back(name.substr(0, name.size() - kValues.size()) + ".weight");
    } else if (hidden_.count(name) == 0) {
      names_.push_back(name);
    }
  }
}

HfInt4Checkpoint::Layer HfInt4Checkpoint::read_layer(const std::string& prefix) const {
  const std::string file = path().string();
  const auto get = [&](const char* part, std::initializer_list<DType> types, size_t dimensions) {
    const std::string name = prefix + part;
    require(base_->contains(name), "{}: tensor \"{}\" is missing beside \"{}{}\"", file, printable(name),
            printable(prefix), kValues);
    const TensorInfo info = base_->info(name);
    require(std::find(types.begin(), types.end(), info.dtype) != types.end(),
            "{}: tensor \"{}\": expected type {}, found {}", file, printable(name),
            types.size() == 1 ? name_of(*types.begin()) : "F16, BF16 or F32", info.type);
    const bool filled = std::all_of(info.shape.begin(), info.shape.end(), [](int64_t n) { return n > 0; });
    require(info.shape.size() == dimensions && filled, "{}: tensor \"{}\": expected {} dimensions, found {}",
            file, printable(name), dimensions, text_of(info.shape));
    return info;
  };
  const auto expect_shape = [&](const char* part, const TensorInfo& info, const std::vector<int64_t>& shape) {
    require(info.shape == shape, "{}: tensor \"{}\": expected shape {}, found {}", file,
            printable(prefix + part), text_of(shape), text_of(info.shape));
  };
  for (const std::string& module : int4_.modules_to_not_convert) {
    require(prefix.find(module) == std::string::npos,
            "{}: tensor \"{}{}\": quantized, but quantization_config.modules_to_not_convert has \"{}\"", file,
            printable(prefix), kValues, printable(module));
  }
  require(!base_->contains(prefix + ".weight"), "{}: tensor \"{}.weight\" is there beside \"{}{}\"", file,
          printable(prefix), printable(prefix), kValues);

  Layer layer;
  layer.prefix = prefix;
  const bool awq = int4_.method == HfInt4Config::Method::awq;
  const TensorInfo values = get(".qweight", {DType::i32}, 2);
  layer.in = values.shape[0] * (awq ? 1 : kPerWord);
  layer.out = values.shape[1] * (awq ? kPerWord : 1);
  require(layer.out % kPerWord == 0, "{}: tensor \"{}{}\": expected a multiple of {} outputs, found {}", file,
          printable(prefix), kValues, kPerWord, layer.out);
  const int64_t group = int4_.group_size == -1 ? layer.in : int4_.group_size;
  require(
      layer.in % group == 0,
      "{}: tensor \"{}{}\": quantization_config.group_size: expected a divisor of the {} inputs, found {}",
      file, printable(prefix), kValues, layer.in, group);
  layer.groups = layer.in / group;
  const TensorInfo zeros = get(".qzeros", {DType::i32}, 2);
  expect_shape(".qzeros", zeros, {layer.groups, layer.out / kPerWord});
  const TensorInfo scales = get(".scales", {DType::f16, DType::bf16, DType::f32}, 2);
  expect_shape(".scales", scales, {layer.groups, layer.out});
  layer.dtype = scales.dtype;
  layer.bytes = values.bytes + zeros.bytes + scales.bytes;
  require(!int4_.own_order || base_->contains(prefix + ".g_idx"),
          "{}: tensor \"{}.g_idx\" is missing, which quantization_config.desc_act needs", file,
          printable(prefix));
  if (!awq && base_->contains(prefix + ".g_idx")) {
    const TensorInfo index = get(".g_idx", {DType::i32}, 1);
    expect_shape(".g_idx", index, {layer.in});
    layer.has_group_index = true;
    layer.bytes += index.bytes;
  }
  return layer;
}

bool HfInt4Checkpoint::is_filler(const std::string& prefix, const std::string& bias) const {
  if (!base_->contains(bias)) return false;
  const auto says = [&](const char* field) {
    const auto it = config_.find(field);
    return it != config_.end() && *it == true;
  };
  const bool mlp = prefix.find(".mlp.") != std::string::npos;
  const bool output = prefix.ends_with(".o_proj");
  const bool qwen2 = config_.value("model_type", nlohmann::ordered_json()) == "qwen2";
  if (mlp ? says("mlp_bias") : says("attention_bias") || (qwen2 && !output)) return false;
  const Tensor tensor = base_->load(bias);
  return std::all_of(tensor.bytes.begin(), tensor.bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

const HfInt4Checkpoint::Layer* HfInt4Checkpoint::find(const std::string& name) const {
  const auto it = layers_.find(name);
  if (it != layers_.end()) return &it->second;
  require(hidden_.count(name) == 0, "{}: tensor \"{}\" is missing", path().string(), printable(name));
  return nullptr;
}

bool HfInt4Checkpoint::contains(const std::string& name) const {
  return layers_.count(name) != 0 || (hidden_.count(name) == 0 && base_->contains(name));
}

TensorInfo HfInt4Checkpoint::info(const std::string& name) const {
  const Layer* layer = find(name);
  if (layer == nullptr) return base_->info(name);
  const char* type = int4_.method == HfInt4Config::Method::awq ? "AWQ-INT4" : "GPTQ-INT4";
  return {type, {layer->out, layer->in}, layer->bytes, layer->dtype};
}

HfInt4Weight HfInt4Checkpoint::read_weight(const Layer& layer) const {
  const std::string file = path().string();
  const bool awq = int4_.method == HfInt4Config::Method::awq;
  HfInt4Weight weight;
  weight.in = layer.in;
  weight.out = layer.out;
  weight.groups = layer.groups;
  weight.awq = awq;
  const Tensor zeros = base_->load(layer.prefix + ".qzeros");
  const auto words = words_of(zeros);
  // Some writers say that they are in the first format and store zero points as they are. Where all of them
  // are known to be 8, one can tell.
  constexpr uint32_t kEights = 0x88888888;
  const bool as_they_are = int4_.symmetric && std::all_of(words.begin(), words.end(), [](int32_t word) {
                             return static_cast<uint32_t>(word) == kEights;
                           });
  weight.zeros = unpack_int4_zeros(words, awq, int4_.zeros_minus_one && !as_they_are);
  weight.scales.resize(static_cast<size_t>(layer.groups * layer.out));
  base_->read_float(layer.prefix + ".scales", weight.scales);
  const bool finite =
      std::all_of(weight.scales.begin(), weight.scales.end(), [](float s) { return std::isfinite(s); });
  require(finite, "{}: tensor \"{}.scales\": has values that are NaN or infinite", file,
          printable(layer.prefix));
  weight.group.resize(static_cast<size_t>(layer.in));
  if (layer.has_group_index) {
    const Tensor index = base_->load(layer.prefix + ".g_idx");
    std::copy_n(index.data<int32_t>(), layer.in, weight.group.begin());
    for (const int32_t group : weight.group) {
      require(group >= 0 && group < layer.groups, "{}: tensor \"{}.g_idx\": expected 0 to {}, found {}", file,
              printable(layer.prefix), layer.groups - 1, group);
    }
  } else {
    for (int64_t i = 0; i < layer.in; ++i)
      weight.group[static_cast<size_t>(i)] = static_cast<int32_t>(i * layer.groups / layer.in);
  }
  return weight;
}

Tensor HfInt4Checkpoint::load(const std::string& name) const {
  const Layer* layer = find(name);
  if (layer == nullptr) return base_->load(name);
  HfInt4Weight weight = read_weight(*layer);
  const Tensor values = base_->load(layer->prefix + std::string(kValues));
  weight.qweight = values.data<int32_t>();
  const auto size = static_cast<size_t>(layer->in * layer->out) * size_of(layer->dtype);
  auto storage = std::make_shared<Buffer<std::byte>>(size);
  dequantize_int4(weight, layer->dtype, storage->span());
  return {layer->dtype, {layer->out, layer->in}, std::as_bytes(storage->span()), storage};
}

void HfInt4Checkpoint::read_float(const std::string& name, std::span<float> out) const {
  if (find(name) == nullptr) return base_->read_float(name, out);
  const Tensor tensor = load(name);
  require(out.size() == static_cast<size_t>(tensor.elements()),
          "{}: tensor \"{}\": expected {} values, it has {}", path().string(), printable(name), out.size(),
          tensor.elements());
  to_float(tensor, out);
}

}  // namespace atom
