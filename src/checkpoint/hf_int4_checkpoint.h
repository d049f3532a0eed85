#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_int4_config.h"
#include "checkpoint/hf_int4_weight.h"

namespace atom {

/// A Hugging Face checkpoint whose linear layers are 4-bit weights of GPTQ or AWQ, seen as one of full
/// precision: the tensors P.qweight, P.qzeros, P.scales and P.g_idx are one, P.weight [out, in], in the type
/// of the scales; each value is (q - zero) * scale, rounded once, as the runtimes of Hugging Face have it.
/// The configuration has no quantization_config.
class HfInt4Checkpoint : public Checkpoint {
 public:
  /// Takes over a checkpoint for which HfInt4Config::is_in(). Checks shapes and types, but no values: load()
  /// names scales that are not finite, and groups out of range. Throws Error naming field or tensor.
  explicit HfInt4Checkpoint(std::unique_ptr<Checkpoint> base);

  std::string format() const override { return base_->format(); }
  std::vector<std::filesystem::path> files() const override { return base_->files(); }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override { return names_; }
  bool contains(const std::string& name) const override;
  TensorInfo info(const std::string& name) const override;
  Tensor load(const std::string& name) const override;
  void read_float(const std::string& name, std::span<float> out) const override;
  bool has_tokenizer() const override { return base_->has_tokenizer(); }
  const nlohmann::ordered_json& tokenizer_json() const override { return base_->tokenizer_json(); }
  const nlohmann::ordered_json& tokenizer_config() const override { return base_->tokenizer_config(); }

 private:
  struct Layer {
    std::string prefix;
    int64_t in = 0;
    int64_t out = 0;
    int64_t groups = 0;
    bool has_group_index = false;
    DType dtype = DType::f16;
    uint64_t bytes = 0;
  };

  Layer read_layer(const std::string& prefix) const;
  /// Whether a quantized layer's bias is one that GPTQ's writers add to layers without: zeros where the
  /// architecture has none.
  bool is_filler(const std::string& prefix, const std::string& bias) const;
  HfInt4Weight read_weight(const Layer& layer) const;
  const Layer* find(const std::string& name) const;

  std::unique_ptr<Checkpoint> base_;
  HfInt4Config int4_;
  nlohmann::ordered_json config_;
  std::vector<std::string> names_;
  /// By the name of the weight.
  std::unordered_map<std::string, Layer> layers_;
  /// What the base has and this one hides.
  std::unordered_set<std::string> hidden_;
};

}  // namespace atom
