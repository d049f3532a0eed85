#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "tensor/device.h"

namespace atom::cli {

/// A linear layer, [n, k].
struct LayerShape {
  std::string name;
  int64_t n;
  int64_t k;
};

/// What benchmarks need to know of a model.
struct ModelShape {
  std::string name;
  ModelConfig config;

  /// q, k and v in one, o, gate and up in one, down: the linear layers of a decoder layer, in order.
  std::vector<LayerShape> layers() const;
};

/// Those of RandomCheckpoint. Throws UsageError, naming those there are.
ModelShape model_shape(const std::string& name);

std::vector<ModelShape> model_shapes(const std::vector<std::string>& names);

/// The one to measure where none is named.
std::string default_model(const DeviceContext& device);

/// "llama-2-7b, ...": for help and errors.
std::string model_names();

/// NxK. Throws UsageError.
LayerShape parse_shape(const std::string& text);

}  // namespace atom::cli
