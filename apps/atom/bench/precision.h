#pragma once

#include <optional>
#include <string>

#include "checkpoint/packed.h"
#include "kernels/kv_view.h"
#include "model/config.h"

namespace atom::cli {

/// Of a whole model of random weights: "w4a4kv4".
struct Precision {
  std::string name;
  std::optional<QuantizationConfig> quantization;
  KvFormat cache;
};

inline constexpr const char* kPrecisionHelp =
    "fp16, w8a8, fp8, w4a16, w4a8 or w4a4 for the linear layers, then kv16 (the default), kv8 or kv4";

/// Throws UsageError.
Precision precision_of(const std::string& name, const ModelConfig& config);

}  // namespace atom::cli
