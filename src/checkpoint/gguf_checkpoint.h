#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mapped_file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_llama.h"

namespace atom {

/// A GGUF file of a Llama model, seen as a Hugging Face checkpoint.
class GgufCheckpoint : public Checkpoint {
 public:
  explicit GgufCheckpoint(const std::filesystem::path& path);
  /// Reads from memory that somebody else keeps; `name` is for errors.
  GgufCheckpoint(std::span<const std::byte> bytes, const std::string& name);

  std::string format() const override { return "gguf"; }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override;
  bool contains(const std::string& name) const override;
  TensorInfo info(const std::string& name) const override;
  Tensor load(const std::string& name) const override;
  void read_float(const std::string& name, std::span<float> out) const override;
  const nlohmann::ordered_json& tokenizer_json() const override;
  const nlohmann::ordered_json& tokenizer_config() const override;

 private:
  struct Entry {
    LlamaTensor mapped;
    const GgufTensor* tensor;
  };

  GgufCheckpoint(std::shared_ptr<const MappedFile> file, const std::filesystem::path& path);
  GgufCheckpoint(std::shared_ptr<const MappedFile> file, std::span<const std::byte> bytes,
                 const std::filesystem::path& path);
  const Entry& find(const std::string& name) const;

  std::shared_ptr<const MappedFile> mapping_;
  GgufFile file_;
  GgufLlama llama_;
  nlohmann::ordered_json config_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;

  // Made when first asked for: a vocabulary takes longer to convert than the rest of the file to open.
  mutable std::mutex tokenizer_mutex_;
  mutable std::unique_ptr<const nlohmann::ordered_json> tokenizer_json_;
  mutable std::unique_ptr<const nlohmann::ordered_json> tokenizer_config_;
};

}  // namespace atom
