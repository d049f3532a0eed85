#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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
  int64_t hidden;
  int64_t intermediate;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;

  /// q, k and v in one, o, gate and up in one, down: the linear layers of a decoder layer, in order.
  std::vector<LayerShape> layers() const;
};

/// Throws UsageError, naming those there are.
ModelShape model_shape(std::string_view name);

/// "llama-2-7b, ...": for help and errors.
std::string model_names();

/// NxK. Throws UsageError.
LayerShape parse_shape(const std::string& text);

}  // namespace atom::cli
