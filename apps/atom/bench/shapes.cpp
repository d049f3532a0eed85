#include "shapes.h"

#include <charconv>

#include "base/error.h"

namespace atom::cli {
namespace {

const ModelShape kModels[] = {
    {"smollm2-135m", 576, 1536, 9, 3, 64},     {"llama-2-7b", 4096, 11008, 32, 32, 128},
    {"llama-2-13b", 5120, 13824, 40, 40, 128}, {"llama-3-8b", 4096, 14336, 32, 8, 128},
    {"llama-2-70b", 8192, 28672, 64, 8, 128},
};

/// Elements along one side of a weight that `--shape` allows.
constexpr int64_t kMaxSide = int64_t{1} << 20;

}  // namespace

std::vector<LayerShape> ModelShape::layers() const {
  return {{"qkv", (heads + 2 * kv_heads) * head_dim, hidden},
          {"o", hidden, heads * head_dim},
          {"gate_up", 2 * intermediate, hidden},
          {"down", hidden, intermediate}};
}

ModelShape model_shape(std::string_view name) {
  for (const ModelShape& model : kModels) {
    if (model.name == name) return model;
  }
  throw UsageError(fmt::format("--model: expected some of {}, found '{}'", model_names(), printable(name)));
}

std::string model_names() {
  std::string names;
  for (const ModelShape& model : kModels) names += (names.empty() ? "" : ", ") + model.name;
  return names;
}

LayerShape parse_shape(const std::string& text) {
  int64_t n = 0, k = 0;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, n);
  bool good = first.ec == std::errc() && first.ptr != end && *first.ptr == 'x';
  if (good) {
    const auto second = std::from_chars(first.ptr + 1, end, k);
    good = second.ec == std::errc() && second.ptr == end;
  }
  if (!good || n < 1 || k < 1 || n > kMaxSide || k > kMaxSide) {
    throw UsageError(
        fmt::format("--shape: expected NxK (outputs and inputs of a layer, each 1 to {}), found '{}'",
                    kMaxSide, printable(text)));
  }
  return {text, n, k};
}

}  // namespace atom::cli
