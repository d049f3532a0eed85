#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "tensor/tensor.h"

namespace atom {

/// What a checkpoint says about a tensor without reading it.
struct TensorInfo {
  /// Type in the file: "F32", "BF16", "I8", "Q4_1", ...
  std::string type;
  /// Row-major, as Hugging Face has it: a linear layer's weight is [out, in].
  std::vector<int64_t> shape;
  /// Size in the file.
  uint64_t bytes = 0;
  /// The type that load() gives.
  DType dtype = DType::f32;
};

/// A model on disk: a GGUF file, or a Hugging Face directory (which a packed Atom directory is, too); or a
/// random one. Memory-mapped; tensors go by their Hugging Face names
/// ("model.layers.0.self_attn.q_proj.weight").
///
/// All the methods are safe to call from several threads at once. They throw Error, naming the file and the
/// tensor or field, for what is missing or malformed. Values are not examined: NaN and infinity pass through.
class Checkpoint {
 public:
  /// Opens a GGUF file (any part of a split one), or a directory with config.json, safetensors files and, as
  /// a rule, tokenizer.json. Throws Error.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);

  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  /// "gguf", "safetensors" or "random".
  virtual std::string format() const = 0;

  /// What was opened.
  const std::filesystem::path& path() const { return path_; }

  /// The files that hold the tensors.
  virtual std::vector<std::filesystem::path> files() const = 0;

  /// The Hugging Face config.json; for GGUF one made from the metadata (gguf_model.h).
  virtual const nlohmann::ordered_json& config() const = 0;

  /// Names of the tensors in the order of the file.
  virtual std::vector<std::string> names() const = 0;
  virtual bool contains(const std::string& name) const = 0;
  /// What the file calls the tensor, for errors; GGUF has names of its own.
  virtual std::string name_in_file(const std::string& name) const { return name; }
  virtual TensorInfo info(const std::string& name) const = 0;

  /// Plain types: a view of the mapped file, copied only when misaligned or when rows must be reordered.
  /// Block-quantized GGUF types: dequantized to F32, owned by the result; GPTQ and AWQ: to the type of their
  /// scales. The result stays valid when the checkpoint is gone.
  virtual Tensor load(const std::string& name) const = 0;

  /// The values as float. `out` must have as many elements as the tensor.
  virtual void read_float(const std::string& name, std::span<float> out) const = 0;

  /// A Hugging Face tokenizer.json document. Throws Error when there is none.
  virtual const nlohmann::ordered_json& tokenizer_json() const = 0;

  /// Hugging Face tokenizer_config.json: chat_template, bos_token, eos_token, model_max_length, ... An empty
  /// object when a directory has none.
  virtual const nlohmann::ordered_json& tokenizer_config() const = 0;

  /// Whether the scales of a block-quantized tensor are neither NaN nor infinite. Looks at nothing else, so
  /// that it takes little time and no memory; true for other tensors.
  virtual bool has_finite_scales(const std::string&) const { return true; }

  /// Whether there is a tokenizer: packed models that were random have none.
  virtual bool has_tokenizer() const { return true; }

 protected:
  explicit Checkpoint(std::filesystem::path path) : path_(std::move(path)) {}

 private:
  std::filesystem::path path_;
};

}  // namespace atom
