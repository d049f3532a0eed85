#include "shapes.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/error.h"
#include "checkpoint/random_checkpoint.h"
#include "model/weights.h"

namespace atom::cli {
namespace {

/// Elements along one side of a weight that `--shape` allows.
constexpr int64_t kMaxSide = int64_t{1} << 20;

}  // namespace

std::vector<LayerShape> ModelShape::layers() const {
  std::vector<LayerShape> layers;
  for (const LayerInput input : kLayerInputs) {
    const LinearShape shape = shape_of(config, input);
    layers.push_back(
        {name_of(input), std::accumulate(shape.rows.begin(), shape.rows.end(), int64_t{0}), shape.cols});
  }
  return layers;
}

ModelShape model_shape(const std::string& name) {
  const std::vector<std::string> known = RandomCheckpoint::shapes();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    throw UsageError(fmt::format("--model: expected some of {}, found '{}'", model_names(), printable(name)));
  }
  return {name, ModelConfig::from_json(RandomCheckpoint(name, 0, nullptr).config(), name)};
}

std::vector<ModelShape> model_shapes(const std::vector<std::string>& names) {
  std::vector<ModelShape> models;
  for (const std::string& name : names) models.push_back(model_shape(name));
  return models;
}

std::string default_model(const DeviceContext& device) {
  return device.cuda != nullptr ? "llama-2-7b" : "smollm2-135m";
}

std::string model_names() {
  return fmt::format("{}", fmt::join(RandomCheckpoint::shapes(), ", "));
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
