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

GgufCheckpoint::GgufCheckpoint(std::shared_ptr<const MappedFile> file, std::span<const std::byte> bytes,
                               const std::filesystem::path& path)
    : Checkpoint(path),
      mapping_(std::move(file)),
      file_(bytes, path.string()),
      llama_(read_llama(file_)),
      config_(make_llama_config(file_, llama_)) {
  entries_.reserve(file_.tensors().size());
  for (const GgufTensor& tensor : file_.tensors()) {
    Entry entry{map_llama_tensor(file_, llama_, tensor), &tensor};
    index_.emplace(entry.mapped.name, entries_.size());
    entries_.push_back(std::move(entry));
  }
}

GgufCheckpoint::GgufCheckpoint(const std::filesystem::path& path)
    : GgufCheckpoint(std::make_shared<const MappedFile>(path), path) {}

GgufCheckpoint::GgufCheckpoint(std::shared_ptr<const MappedFile> file, const std::filesystem::path& path)
    : GgufCheckpoint(file, file->bytes(), path) {}

GgufCheckpoint::GgufCheckpoint(std::span<const std::byte> bytes, const std::string& name)
    : GgufCheckpoint(nullptr, bytes, name) {}

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
  require(it != index_.end(), "{}: tensor \"{}\" is missing", file_.name(), printable(name));
  return entries_[it->second];
}

TensorInfo GgufCheckpoint::info(const std::string& name) const {
  const GgufTensor& tensor = *find(name).tensor;
  return {layout_of(tensor.type).name, tensor.shape, tensor.bytes.size()};
}

Tensor GgufCheckpoint::load(const std::string& name) const {
  const Entry& entry = find(name);
  const GgufTensor& tensor = *entry.tensor;
  const auto dtype = plain_dtype(tensor.type);
  if (!dtype) {
    auto storage = std::make_shared<Buffer<float>>(static_cast<size_t>(tensor.elements()));
    read_float(name, storage->span());
    return {DType::f32, tensor.shape, std::as_bytes(storage->span()), storage};
  }
  const bool aligned = reinterpret_cast<uintptr_t>(tensor.bytes.data()) % size_of(*dtype) == 0;
  if (entry.mapped.interleaved_heads == 0 && aligned) return {*dtype, tensor.shape, tensor.bytes, mapping_};
  auto storage = std::make_shared<Buffer<std::byte>>(tensor.bytes.size());
  if (entry.mapped.interleaved_heads == 0) {
    std::memcpy(storage->data(), tensor.bytes.data(), tensor.bytes.size());
  } else {
    reorder_rows(tensor.bytes, storage->span(), tensor.shape.front(), static_cast<int64_t>(llama_.head_dim));
  }
  return {*dtype, tensor.shape, std::as_bytes(storage->span()), storage};
}

void GgufCheckpoint::read_float(const std::string& name, std::span<float> out) const {
  const Entry& entry = find(name);
  const GgufTensor& tensor = *entry.tensor;
  require(out.size() == static_cast<size_t>(tensor.elements()),
          "{}: tensor \"{}\": expected {} values, it has {}", file_.name(), printable(name), out.size(),
          tensor.elements());
  if (entry.mapped.interleaved_heads == 0) {
    dequantize(tensor.type, tensor.bytes, out);
  } else {
    const auto rows = static_cast<size_t>(tensor.shape.front());
    const size_t row_bytes = tensor.bytes.size() / rows;
    const size_t cols = out.size() / rows;
    for (size_t r = 0; r < rows; ++r) {
      const auto source = static_cast<size_t>(
          interleaved_row(static_cast<int64_t>(r), static_cast<int64_t>(llama_.head_dim)));
      dequantize(tensor.type, tensor.bytes.subspan(source * row_bytes, row_bytes),
                 out.subspan(r * cols, cols));
    }
  }
  // The caller has its copy; what was read need not stay resident.
  if (mapping_) mapping_->release(tensor.bytes);
}

const nlohmann::ordered_json& GgufCheckpoint::tokenizer_json() const {
  const std::lock_guard lock(tokenizer_mutex_);
  if (!tokenizer_json_)
    tokenizer_json_ = std::make_unique<const nlohmann::ordered_json>(make_tokenizer_json(file_));
  return *tokenizer_json_;
}

const nlohmann::ordered_json& GgufCheckpoint::tokenizer_config() const {
  const std::lock_guard lock(tokenizer_mutex_);
  if (!tokenizer_config_) {
    tokenizer_config_ = std::make_unique<const nlohmann::ordered_json>(make_tokenizer_config(file_));
  }
  return *tokenizer_config_;
}

}  // namespace atom
