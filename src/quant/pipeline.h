#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "quant/recipe.h"
#include "tensor/device.h"

namespace atom {

/// Token sequences that a model is calibrated on, and where they came from (kept in the checkpoint for the
/// record).
struct CalibrationSet {
  std::vector<std::vector<int32_t>> samples;
  std::string source;
  uint64_t seed = 0;
};

/// What a quantization did, for the closing report.
struct QuantizationReport {
  double seconds = 0;
  int64_t tokens = 0;
  /// On a GPU: the most of its memory that was in use.
  std::optional<size_t> device_memory_bytes;
};

/// Quantizes `checkpoint` by `recipe`, layer by layer, each layer calibrated on the outputs of the quantized
/// ones before it, and writes a packed checkpoint into the directory `out` (which exists, is empty, and is
/// made final by the caller: see AtomicDirectory).
///
/// Memory (a GPU's on a GPU): one layer's weights and one set of hidden states and of attention outputs
/// (samples * length * (hidden + n_heads * head_dim) floats), never the model twice. Deterministic for the
/// same samples, whatever the number of threads. Throws Error for a checkpoint that is already packed, bad
/// settings, or non-finite weights, and Interrupted after Ctrl-C.
QuantizationReport quantize(const Checkpoint& checkpoint, const DeviceContext& device, const Recipe& recipe,
                            const CalibrationSet& calibration, const std::filesystem::path& out, bool quiet);

/// `count` windows of `length` consecutive tokens of `tokens`, at starts drawn without overlap by `seed`; as
/// many as there are when fewer fit. Throws Error naming `source` when not one fits.
std::vector<std::vector<int32_t>> sample_windows(const std::vector<int32_t>& tokens, int64_t count,
                                                 int64_t length, uint64_t seed, const std::string& source);

}  // namespace atom
