#include "quant/pipeline.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "checkpoint/json.h"
#include "kernels/cuda.h"
#include "kernels/quant_ops.h"
#include "quant/layer_quantizer.h"
#include "quant/packed_output.h"

namespace atom {
namespace {

/// Hidden states of all samples as they enter the first layer.
CalibrationState embed(const ModelConfig& config, const DeviceContext& device, WeightReader& reader,
                       const CalibrationSet& calibration) {
  CalibrationState state;
  state.first_row.push_back(0);
  for (const auto& sample : calibration.samples) {
    const auto length = static_cast<int64_t>(sample.size());
    require(length > 0, "calibration: a sample is empty");
    require(length <= config.max_positions, "calibration: a sample has {} tokens, the model takes {} at most",
            length, config.max_positions);
    for (const int32_t token : sample) {
      require(token >= 0 && token < config.vocab,
              "calibration: token id {} is outside of the vocabulary of {}", token, config.vocab);
    }
    state.first_row.push_back(state.first_row.back() + length);
  }
  const int64_t tokens = state.first_row.back();
  state.hidden = Matrix<float>(tokens, config.hidden, device.memory);
  state.attended = Matrix<float>(tokens, config.q_size(), device.memory);
  const Tensor embedding =
      to_memory(reader.floats("model.embed_tokens.weight", {config.vocab, config.hidden}), device.memory);
  for (int64_t i = 0; i < state.samples(); ++i) {
    throw_if_interrupted();
    const auto rows = state.hidden.view().row_range(state.first_row[i], state.first_row[i + 1]);
    const auto ids = Buffer<int32_t>::copy_of(calibration.samples[static_cast<size_t>(i)], device.memory);
    run(device, EmbeddingLookup{ids.span(), embedding.dtype, embedding.bytes.data(), rows});
  }
  return state;
}

void check(const Checkpoint& checkpoint, const ModelConfig& config, const DeviceContext& device,
           const Recipe& recipe, const CalibrationSet& calibration) {
  const std::string source = checkpoint.path().string();
  require(!is_quantized(checkpoint.config()),
          "{}: is quantized already (config.json has a quantization_config); quantize the original model",
          source);
  recipe.validate();
  require(device.cuda == nullptr || !recipe.gptq || recipe.block_size <= kLargestGpuGptqBlock,
          "block size: a GPU takes {} columns at most, found {}", kLargestGpuGptqBlock, recipe.block_size);
  require(!recipe.rotate_keys || std::has_single_bit(static_cast<uint64_t>(config.head_dim)),
          "{}: rotating keys needs a head_dim that is a power of two, found {}", source, config.head_dim);
  check_tensor_names(checkpoint, config);
  require(!recipe.needs_calibration() || !calibration.samples.empty(),
          "recipe {} needs calibration text, and none was given", recipe.name);
  for (const LayerInput input : kLayerInputs) {
    const ChannelLayout layout = layout_of(config, recipe, input);
    const int64_t rows = shape_of(config, input).rows[0];
    const int bits = recipe.activation_bits;
    const std::string reason =
        slow_kernel_reason(device, layout, bits, choose_layout(device, rows, layout, bits));
    if (!reason.empty()) spdlog::warn("{} runs on the slow kernel reference: {}", name_of(input), reason);
  }
}

}  // namespace

QuantizationReport quantize(const Checkpoint& checkpoint, const DeviceContext& device, const Recipe& recipe,
                            const CalibrationSet& calibration, const std::filesystem::path& out, bool quiet) {
  const auto start = std::chrono::steady_clock::now();
  const std::string source = checkpoint.path().string();
  const ModelConfig config = ModelConfig::from_json(checkpoint.config(), source + ": config");
  check(checkpoint, config, device, recipe, calibration);

  WeightReader reader(checkpoint);
  std::optional<CalibrationState> state;
  int64_t longest = 1;
  if (recipe.needs_calibration()) {
    state = embed(config, device, reader, calibration);
    for (const auto& sample : calibration.samples)
      longest = std::max(longest, static_cast<int64_t>(sample.size()));
  }
  const int64_t samples = state ? state->samples() : 0;
  const int64_t tokens = state ? state->hidden.rows() : 0;
  nlohmann::ordered_json record = {
      {"source", calibration.source}, {"samples", samples},  {"tokens", tokens},
      {"seed", calibration.seed},     {"gptq", recipe.gptq}, {"search_clips", recipe.search_clips},
  };
  if (recipe.gptq) record.update({{"damping", decimal(recipe.damping)}, {"block_size", recipe.block_size}});
  if (!recipe.search_clips) {
    record.update(
        {{"weight_clip", decimal(recipe.weight_clip)}, {"activation_clip", decimal(recipe.activation_clip)}});
  }
  PackedOutput output(checkpoint, config, recipe, record, out);
  output.write_shared(reader, device);
  RopeTable rope;
  rope.grow(longest, config, device.memory);

  Progress progress("quantize", std::max<int64_t>(1, config.n_layers * kPassesPerLayer * samples), quiet);
  int64_t done = 0;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const LayerSource layer{&reader, &config, &rope, &device, i};
    const std::string note = fmt::format("layer {} of {}", i + 1, config.n_layers);
    const QuantizedLayer quantized =
        quantize_layer(layer, recipe, state ? &*state : nullptr, [&] { progress.update(++done, note); });
    output.write_layer(reader, i, quantized);
    if (!state) progress.update(i + 1 == config.n_layers ? 1 : 0, note);
  }
  state.reset();
  output.finish();
  QuantizationReport report;
  if (device.cuda != nullptr) report.device_memory_bytes = cuda_memory_info(device).peak;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.tokens = tokens;
  return report;
}

std::vector<std::vector<int32_t>> sample_windows(const std::vector<int32_t>& tokens, int64_t count,
                                                 int64_t length, uint64_t seed, const std::string& source) {
  require(count > 0, "samples: expected at least 1, found {}", count);
  require(length > 0, "sample length: expected at least 1, found {}", length);
  const int64_t windows = static_cast<int64_t>(tokens.size()) / length;
  require(windows > 0, "{}: expected at least {} tokens for one sample, found {}", source, length,
          tokens.size());
  std::vector<int64_t> order(static_cast<size_t>(windows));
  for (int64_t i = 0; i < windows; ++i) order[static_cast<size_t>(i)] = i;
  Random random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  order.resize(static_cast<size_t>(std::min(count, windows)));
  std::vector<std::vector<int32_t>> samples;
  for (const int64_t window : order) {
    const auto begin = tokens.begin() + window * length;
    samples.emplace_back(begin, begin + length);
  }
  return samples;
}

}  // namespace atom
