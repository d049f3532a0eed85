#pragma once

#include <array>
#include <functional>
#include <vector>

#include "kvcache/paged_cache.h"
#include "model/decoder_layer.h"
#include "model/weights.h"
#include "quant/hessian.h"
#include "quant/recipe.h"

namespace atom {

/// One quantized input of a layer and the stacked linear layers that read it.
struct QuantizedInput {
  ActivationSpec spec;
  /// permutation[i] is the channel of the original model that comes i-th.
  std::vector<int32_t> permutation;
  LowBitStorage weight;
};

/// A quantized layer in canonical form, indexed by LayerInput. The rows of gate_up are in the order that down
/// wants.
using QuantizedLayer = std::array<QuantizedInput, 4>;

/// Where a layer finds its weights and what surrounds it.
struct LayerSource {
  WeightReader* reader;
  const ModelConfig* config;
  const RopeTable* rope;
  const DeviceContext* device;
  int64_t index;
};

/// Residual streams and attention outputs of the calibration samples: all that is kept between layers. In the
/// device's memory.
struct CalibrationState {
  /// First row of each sample in `hidden` and `attended`; one entry more than samples.
  std::vector<int64_t> first_row;
  Matrix<float> hidden;    // [tokens, hidden]
  Matrix<float> attended;  // [tokens, n_heads * head_dim]

  int64_t samples() const { return static_cast<int64_t>(first_row.size()) - 1; }
  int64_t rows(int64_t sample) const { return first_row[sample + 1] - first_row[sample]; }
};

/// Passes over the calibration set that quantizing one layer takes, for progress.
inline constexpr int64_t kPassesPerLayer = 5;

/// Quantizes one layer by `recipe`, one input after the other: statistics of an input are taken with
/// everything before it already quantized. Leaves the outputs of the quantized layer in state.hidden. `state`
/// is null when the recipe needs no calibration. `on_sample` is called for each sample of each pass, when the
/// device is done with it. The result lies in the host's memory.
QuantizedLayer quantize_layer(const LayerSource& source, const Recipe& recipe, CalibrationState* state,
                              const std::function<void()>& on_sample);

}  // namespace atom
