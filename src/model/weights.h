#pragma once

#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/packed.h"
#include "model/config.h"
#include "model/decoder_layer.h"
#include "model/linear.h"

namespace atom {

/// Rows of the linear layers that read an input, in the order of linears_of(), and their common number of
/// columns.
struct LinearShape {
  std::vector<int64_t> rows;
  int64_t cols;
};

LinearShape shape_of(const ModelConfig& config, LayerInput input);

/// Whether the linear layers that read `input` have biases, one for each row.
bool has_bias(const ModelConfig& config, LayerInput input);

/// A vector of a layer that stays in full precision: its Hugging Face name, prefix included, and its size.
struct LayerVector {
  std::string name;
  int64_t size;
};

/// Norms of `layer`, those of heads where the family has them.
std::vector<LayerVector> norms_of(const ModelConfig& config, int64_t layer);

/// Biases of the linear layers of `layer` that read `input`, in the order of linears_of(); empty without.
std::vector<LayerVector> biases_of(const ModelConfig& config, int64_t layer, LayerInput input);

/// Reads tensors of a checkpoint with every check that a hostile file asks for (shape, type, values that are
/// finite and within FP16) and remembers which were read.
class WeightReader {
 public:
  /// `shapes_only`: what is read in full precision has no bytes (vectors: zeros), and its values are not
  /// checked.
  explicit WeightReader(const Checkpoint& checkpoint, bool shapes_only = false)
      : checkpoint_(checkpoint), shapes_only_(shapes_only) {}

  const Checkpoint& checkpoint() const { return checkpoint_; }

  /// A float tensor of this shape in its own type (block-quantized: F32). Throws Error.
  Tensor floats(const std::string& name, const std::vector<int64_t>& shape);
  /// A float vector, converted to float, in `memory` (null: the host's).
  Buffer<float> vector(const std::string& name, int64_t size, Memory* memory = nullptr);
  /// Matrices with `cols` columns stacked by rows, in their common type, else F32.
  Tensor stacked(const std::vector<std::string>& names, const std::vector<int64_t>& rows, int64_t cols);

  /// The canonical arrays of a packed linear layer.
  LowBitStorage low_bit(const std::string& prefix, int64_t rows, const ChannelLayout& layout);
  /// A permutation of `size` channels.
  std::vector<int32_t> permutation(const std::string& name, int64_t size);
  /// One float in (0, 1].
  float clip(const std::string& name);

  /// Throws Error naming the first tensor that nobody read. What tied embeddings and old exports leave behind
  /// is let pass.
  void refuse_unread(bool tied_embeddings) const;

 private:
  /// Checks that the tensor is there and of this shape.
  TensorInfo expect(const std::string& name, const std::vector<int64_t>& shape);
  Tensor load(const std::string& name, const std::vector<int64_t>& shape);
  /// load() of exactly this type.
  Tensor load(const std::string& name, const std::vector<int64_t>& shape, DType dtype);

  const Checkpoint& checkpoint_;
  bool shapes_only_;
  std::set<std::string> read_;
};

/// Reads all of `layer` but its linear layers into `out`: norms, biases and window; into the device's memory.
void read_layer_vectors(WeightReader& reader, const ModelConfig& config, const DeviceContext& device,
                        int64_t layer, DecoderLayer& out);

/// Throws Error naming the first tensor that a full-precision model of this configuration does not have,
/// or else one that it lacks; looks at names alone.
void check_tensor_names(const Checkpoint& checkpoint, const ModelConfig& config);

/// Reads the whole file of a full-precision model once, keeping nothing: throws Error naming the first tensor
/// with values that are NaN, infinite or beyond FP16, as far as that can be told without dequantizing, and a
/// head that is there although the config says that the embedding is the head. What is wrong with the last
/// tensor is known before memory is taken for the first.
void check_values(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace atom
