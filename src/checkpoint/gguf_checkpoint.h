#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/gguf_parts.h"
#include "checkpoint/gguf_tensors.h"

namespace atom {

/// A GGUF model, in one file or several, seen as a Hugging Face checkpoint.
class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path);
  /// Reads from memory that somebody else keeps; `name` is for errors.
  GgufCheckpoint(std::span<const std::byte> bytes, const std::string& name);
  /// The same for the parts of a split model.
  GgufCheckpoint(std::span<const std::span<const std::byte>> parts, const std::string& name);

  std::string format() const override { return "gguf"; }
  std::vector<std::filesystem::path> files() const override { return parts_.files(); }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override;
  bool contains(const std::string& name) const override;
  TensorInfo info(const std::string& name) const override;
  std::string name_in_file(const std::string& name) const override;
  bool has_finite_scales(const std::string& name) const override;
  Tensor load(const std::string& name) const override;
  void read_float(const std::string& name, std::span<float> out) const override;
  const nlohmann::ordered_json& tokenizer_json() const override;
  const nlohmann::ordered_json& tokenizer_config() const override;

 private:
  struct Entry {
    MappedTensor mapped;
    GgufParts::Item item;
  };

  GgufCheckpoint(GgufParts parts, const std::filesystem::path& path);
  const Entry& find(const std::string& name) const;
  /// The name of the tensor's file, for errors.
  static const std::string& file_of(const Entry& entry) { return entry.item.part->file.name(); }

  GgufParts parts_;
  GgufModel model_;
  nlohmann::ordered_json config_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;

  // Made when first asked for: a vocabulary takes longer to convert than the rest of the file to open.
  mutable std::mutex tokenizer_mutex_;
  mutable std::unique_ptr<const nlohmann::ordered_json> tokenizer_json_;
  mutable std::unique_ptr<const nlohmann::ordered_json> tokenizer_config_;
};

}  // namespace atom
