#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace atom {

/// The input of a linear layer, in the one of two forms that the layer asks for.
struct LinearInput {
  FloatInput values;                                // float layers
  const QuantizedActivations* quantized = nullptr;  // low-bit layers
};

/// What `atom inspect` tells of a layer.
struct LinearInfo {
  std::string kind;    // "W4A4", "W4A8", "W4A16", "W8A8", "FP8", "F32", "F16", "BF16"
  std::string kernel;  // the implementation that runs it
  std::string reason;  // why a slower one had to be chosen; empty otherwise
  int64_t weights = 0;
  int64_t bytes = 0;  // as stored canonically, scales included
};

/// y = x * w^T for weights of one precision. Immutable once made, so threads may share it.
class Linear {
 public:
  virtual ~Linear() = default;

  virtual int64_t in_features() const = 0;
  virtual int64_t out_features() const = 0;

  /// How the input must be quantized; null for a layer that takes floats.
  virtual const ActivationSpec* activation_spec() const { return nullptr; }
  /// Of a layer that takes floats: the type that it would rather have than f32, which it takes as well.
  virtual DType input_type(const DeviceContext&) const { return DType::f32; }
  /// Order of the input's channels (activation_spec().layout.k entries); null for the identity.
  virtual const int32_t* permutation() const { return nullptr; }

  /// y [tokens, out_features] = x * w^T, or y += x * w^T where `accumulate`.
  virtual void forward(const DeviceContext& device, const LinearInput& x, MatrixView<float> y,
                       bool accumulate) const = 0;

  virtual LinearInfo info(const DeviceContext& device) const = 0;
};

/// Weights [out, in] in f32, f16 or bf16, in the device's memory, in a tensor that is shared with whoever
/// made it.
std::unique_ptr<Linear> make_float_linear(Tensor weight);

/// The canonical arrays of a low-bit weight, owned (layouts as in LowBitWeight). In the host's memory, but
/// for what a GPU is quantizing.
struct LowBitStorage {
  int64_t n = 0;
  ChannelLayout layout;
  Buffer<uint8_t> values;
  Buffer<uint16_t> scales;
  Buffer<int8_t> outliers;
  Buffer<uint16_t> outlier_scales;
  Buffer<uint16_t> outliers_fp16;

  LowBitStorage() = default;
  /// Zeros of the right sizes, in `memory` (null: the host's).
  LowBitStorage(int64_t rows, const ChannelLayout& channel_layout, Memory* memory = nullptr);
  LowBitWeight view() const;
};

/// `parts` stacked by rows, in order; they have the same layout.
LowBitStorage stack_rows(const std::vector<const LowBitStorage*>& parts);

/// Why low-bit weights of this layout run on the reference kernel, though the device has faster ones; empty
/// where they do not.
std::string slow_kernel_reason(const DeviceContext& device, const ChannelLayout& layout, int activation_bits,
                               WeightLayout weight_layout);

/// A low-bit layer whose input is quantized by `spec` after reordering by `permutation` (empty: identity).
/// Repacked for `device`. With 16-bit activations (W4A16) the layer takes floats: no outliers, no reordering.
std::unique_ptr<Linear> make_low_bit_linear(const DeviceContext& device, const LowBitStorage& weight,
                                            const ActivationSpec& spec,
                                            const std::vector<int32_t>& permutation);

/// A low-bit layer from canonical weights in the device's memory.
std::unique_ptr<Linear> make_low_bit_linear(const DeviceContext& device, PreparedWeight canonical,
                                            const ActivationSpec& spec,
                                            const std::vector<int32_t>& permutation);

}  // namespace atom
