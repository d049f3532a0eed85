#include "checkpoint/gguf_checkpoint.h"

#include <cassert>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "checkpoint/gguf_tokenizer.h"

namespace atom {
namespace {

/// Copies `rows` rows of `row_bytes` bytes into Hugging Face's order.
void reorder_rows(std::span<const std::byte> in, std::span<std::byte> out, int64_t rows, int64_t head_dim) {
  const size_t row_bytes = in.size() / static_cast<size_t>(rows);
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(out.data() + static_cast<size_t>(r) * row_bytes,
                in.data() + static_cast<size_t>(interleaved_row(r, head_dim)) * row_bytes, row_bytes);
  }
}

}  // namespace

GgufCheckpoint::GgufCheckpoint(GgufParts parts, const std::filesystem::path& path)
    : Checkpoint(path),
      parts_(std::move(parts)),
      model_(read_gguf_model(parts_.metadata())),
      config_(make_gguf_config(parts_, model_)) {
  entries_.reserve(parts_.items().size());
  for (const GgufParts::Item& item : parts_.items()) {
    Entry entry{map_gguf_tensor(item.part->file.name(), model_, *item.tensor), item};
    if (entry.mapped.name.empty()) continue;
    index_.emplace(entry.mapped.name, entries_.size());
    entries_.push_back(std::move(entry));
  }
}

GgufCheckpoint::GgufCheckpoint(const std::filesystem::path& path) : GgufCheckpoint(GgufParts(path), path) {}

GgufCheckpoint::GgufCheckpoint(std::span<const std::span<const std::byte>> parts, const std::string& name)
    : GgufCheckpoint(GgufParts(parts, name), name) {}

GgufCheckpoint::GgufCheckpoint(std::span<const std::byte> bytes, const std::string& name)
    : GgufCheckpoint(std::span(&bytes, 1), name) {}

std::vector<std::string> GgufCheckpoint::names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const Entry& entry : entries_) names.push_back(entry.mapped.name);
  return names;
}

bool GgufCheckpoint::contains(const std::string& name) const {
  return index_.count(name) != 0;
}

const GgufCheckpoint::Entry& GgufCheckpoint::find(const std::string& name) const {
  const auto it = index_.find(name);
  require(it != index_.end(), "{}: tensor \"{}\" is missing", path().string(), printable(name));
  return entries_[it->second];
}

TensorInfo GgufCheckpoint::info(const std::string& name) const {
  const GgufTensor& tensor = *find(name).item.tensor;
  return {layout_of(tensor.type).name, tensor.shape, tensor.bytes.size(),
          plain_dtype(tensor.type).value_or(DType::f32)};
}

std::string GgufCheckpoint::name_in_file(const std::string& name) const {
  return contains(name) ? std::string(find(name).item.tensor->name) : name;
}

bool GgufCheckpoint::has_finite_scales(const std::string& name) const {
  const Entry& entry = find(name);
  const bool finite = atom::has_finite_scales(entry.item.tensor->type, entry.item.tensor->bytes);
  if (entry.item.part->mapping) entry.item.part->mapping->release(entry.item.tensor->bytes);
  return finite;
}

Tensor GgufCheckpoint::load(const std::string& name) const {
  const Entry& entry = find(name);
  const GgufTensor& tensor = *entry.item.tensor;
  const auto dtype = plain_dtype(tensor.type);
  if (!dtype) {
    auto storage = std::make_shared<Buffer<float>>(static_cast<size_t>(tensor.elements()));
    read_float(name, storage->span());
    return {DType::f32, tensor.shape, std::as_bytes(storage->span()), storage};
  }
  const bool aligned = reinterpret_cast<uintptr_t>(tensor.bytes.data()) % size_of(*dtype) == 0;
  if (entry.mapped.interleaved_heads == 0 && aligned)
    return {*dtype, tensor.shape, tensor.bytes, entry.item.part->mapping};
  auto storage = std::make_shared<Buffer<std::byte>>(tensor.bytes.size());
  if (entry.mapped.interleaved_heads == 0) {
    std::memcpy(storage->data(), tensor.bytes.data(), tensor.bytes.size());
  } else {
    reorder_rows(tensor.bytes, storage->span(), tensor.shape.front(), static_cast<int64_t>(model_.head_dim));
  }
  return {*dtype, tensor.shape, std::as_bytes(storage->span()), storage};
}

void GgufCheckpoint::read_float(const std::string& name, std::span<float> out) const {
  const Entry& entry = find(name);
  const GgufTensor& tensor = *entry.item.tensor;
  require(out.size() == static_cast<size_t>(tensor.elements()),
          "{}: tensor \"{}\": expected {} values, it has {}", file_of(entry), printable(name), out.size(),
          tensor.elements());
  if (entry.mapped.interleaved_heads == 0) {
    dequantize(tensor.type, tensor.bytes, out);
  } else {
    const auto rows = static_cast<size_t>(tensor.shape.front());
    const size_t row_bytes = tensor.bytes.size() / rows;
    const size_t cols = out.size() / rows;
    for (size_t r = 0; r < rows; ++r) {
      const auto source = static_cast<size_t>(
          interleaved_row(static_cast<int64_t>(r), static_cast<int64_t>(model_.head_dim)));
      dequantize(tensor.type, tensor.bytes.subspan(source * row_bytes, row_bytes),
                 out.subspan(r * cols, cols));
    }
  }
  // The caller has its copy; what was read need not stay resident.
  if (entry.item.part->mapping) entry.item.part->mapping->release(tensor.bytes);
}

const nlohmann::ordered_json& GgufCheckpoint::tokenizer_json() const {
  const std::lock_guard lock(tokenizer_mutex_);
  if (!tokenizer_json_)
    tokenizer_json_ = std::make_unique<const nlohmann::ordered_json>(make_tokenizer_json(parts_.metadata()));
  return *tokenizer_json_;
}

const nlohmann::ordered_json& GgufCheckpoint::tokenizer_config() const {
  const std::lock_guard lock(tokenizer_mutex_);
  if (!tokenizer_config_) {
    tokenizer_config_ =
        std::make_unique<const nlohmann::ordered_json>(make_tokenizer_config(parts_.metadata()));
  }
  return *tokenizer_config_;
}

}  // namespace atom
