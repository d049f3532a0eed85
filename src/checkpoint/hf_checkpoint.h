#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors_shards.h"

namespace atom {

/// A directory in Hugging Face layout: config.json, model.safetensors (or model.safetensors.index.json and
/// the files it names) and, when there are such, tokenizer.json, tokenizer_config.json and
/// chat_template.jinja (which takes precedence over the template in tokenizer_config.json). A directory
/// without tokenizer.json may have another kind of tokenizer (directory_tokenizer.h).
class HfCheckpoint : public Checkpoint {
 public:
  explicit HfCheckpoint(const std::filesystem::path& directory);

  std::string format() const override { return "safetensors"; }
  std::vector<std::filesystem::path> files() const override { return tensors_.files(); }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override { return tensors_.names(); }
  bool contains(const std::string& name) const override { return tensors_.contains(name); }
  TensorInfo info(const std::string& name) const override;
  Tensor load(const std::string& name) const override { return tensors_.file_of(name).load(name); }
  void read_float(const std::string& name, std::span<float> out) const override {
    tensors_.file_of(name).read_float(name, out);
  }
  bool has_tokenizer() const override { return tokenizer_json_.has_value(); }
  const nlohmann::ordered_json& tokenizer_json() const override;
  const nlohmann::ordered_json& tokenizer_config() const override { return tokenizer_config_; }

 private:
  nlohmann::ordered_json config_;
  std::optional<nlohmann::ordered_json> tokenizer_json_;
  nlohmann::ordered_json tokenizer_config_;
  SafetensorsShards tensors_;
};

}  // namespace atom
