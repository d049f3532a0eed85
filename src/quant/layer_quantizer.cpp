#include "quant/layer_quantizer.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/cuda.h"
#include "kernels/quant_ops.h"
#include "quant/activation_sample.h"
#include "quant/gptq.h"
#include "quant/outliers.h"
#include "quant/rounding.h"

namespace atom {
namespace {

/// Rows of an input that the activation clip is searched on.
constexpr int64_t kClipSearchRows = 1024;
/// Rows that a GPU takes at a time, whole samples: enough to fill it. A CPU takes one sample.
constexpr int64_t kGpuRows = 16384;
constexpr int64_t kBlockSize = 16;

/// What the calibration set says about one input.
struct InputStatistics {
  Hessian hessian;
  ActivationSample sample;

  InputStatistics(const DeviceContext& device, const Recipe& recipe, int64_t k, int64_t total_rows)
      : hessian(device, k, !recipe.gptq),
        sample(device, recipe.search_clips ? kClipSearchRows : 0, total_rows, k) {}

  void add(const DeviceContext& device, MatrixView<const float> x) {
    hessian.add(device, x);
    sample.offer(device, x);
  }
};

/// The stacked weights that read `input`, [n, k], as they are stored.
Tensor load_weight(const LayerSource& source, LayerInput input) {
  const LinearShape shape = shape_of(*source.config, input);
  std::vector<std::string> names;
  for (const auto& linear : linears_of(input))
    names.push_back(layer_prefix(source.index) + linear + ".weight");
  return source.reader->stacked(names, shape.rows, shape.cols);
}

/// Chooses order, scales and clip of one input and quantizes what reads it. `statistics` is null without
/// calibration.
QuantizedInput quantize_input(const LayerSource& source, const Recipe& recipe, LayerInput input,
                              const InputStatistics* statistics) {
  const DeviceContext& device = *source.device;
  const std::string name = layer_prefix(source.index) + name_of(input);
  const int64_t k = shape_of(*source.config, input).cols;
  QuantizedInput out;
  out.spec.layout = recipe.layout(k, name);
  out.spec.bits = recipe.activation_bits;
  out.spec.clip = recipe.activation_clip;

  std::vector<double> squares(static_cast<size_t>(k), 0.0);
  if (statistics != nullptr) squares = statistics->hessian.diagonal(device);
  if (out.spec.layout.n_outlier > 0) {
    out.permutation = outlier_permutation(squares, out.spec.layout.n_outlier);
  } else {
    out.permutation.resize(squares.size());
    std::iota(out.permutation.begin(), out.permutation.end(), 0);
  }
  std::vector<double> importance;
  for (const int32_t channel : out.permutation) importance.push_back(squares[static_cast<size_t>(channel)]);
  const ScaleChooser chooser =
      recipe.search_clips ? ScaleChooser(device, importance) : ScaleChooser(recipe.weight_clip);

  const auto order = Buffer<int32_t>::copy_of(out.permutation, device.memory);
  Matrix<float> weight = float_columns(device, load_weight(source, input), order.data());
  if (recipe.search_clips && recipe.activation_bits != 16) {
    out.spec.clip =
        search_activation_clip(device, statistics->sample.rows(), weight.view(), order.data(), out.spec);
  }
  if (recipe.gptq) {
    const GptqFactor factor(device, statistics->hessian, out.permutation, recipe.damping, name);
    out.weight = gptq(device, weight.view(), out.spec.layout, factor, chooser, recipe.block_size);
  } else {
    out.weight = round_to_nearest(device, weight.view(), out.spec.layout, chooser);
  }
  return out;
}

/// Rows of `storage` in a new order: result row i is row order[i].
LowBitStorage permute_rows(const LowBitStorage& storage, const std::vector<int32_t>& order) {
  LowBitStorage out(storage.n, storage.layout);
  const auto copy_rows = [&](auto& to, const auto& from) {
    const size_t width = from.size() / static_cast<size_t>(storage.n);
    for (size_t r = 0; r < order.size(); ++r) {
      std::copy_n(from.data() + static_cast<size_t>(order[r]) * width, width, to.data() + r * width);
    }
  };
  copy_rows(out.values, storage.values);
  copy_rows(out.scales, storage.scales);
  copy_rows(out.outliers, storage.outliers);
  copy_rows(out.outlier_scales, storage.outlier_scales);
  copy_rows(out.outliers_fp16, storage.outliers_fp16);
  return out;
}

/// Samples [first, last): what a device takes at a time.
struct SampleRange {
  int64_t first;
  int64_t last;
};

/// Quantizes the inputs of one layer in turn, each with its own pass over the samples.
class LayerQuantizer {
 public:
  LayerQuantizer(const LayerSource& source, const Recipe& recipe, CalibrationState& state,
                 const std::function<void()>& on_sample)
      : source_(source),
        recipe_(recipe),
        state_(state),
        on_sample_(on_sample),
        ranges_(sample_ranges(*source.device, state)),
        workspace_(*source.device),
        step_{source.device, source.config, source.rope, recipe.rotate_keys, &workspace_},
        cache_({1, source.config->n_kv_heads, source.config->head_dim}, kv_format(recipe), block_count(),
               kBlockSize, source.device->memory) {
    read_layer_vectors(*source.reader, *source.config, *source.device, source.index, layer_);
  }

  QuantizedLayer run_all() {
    const DeviceContext& device = *source_.device;
    quantize_with(LayerInput::qkv, [&](const SampleRange& range, InputStatistics& statistics) {
      statistics.add(device, normed(hidden(range), layer_.attention_norm));
    });
    quantize_with(LayerInput::o, [&](const SampleRange& range, InputStatistics& statistics) {
      const MatrixView<const float> output = attend(range);
      run(device, CopyRows{output, 0, 1, attended(range)});
      statistics.add(device, output);
    });
    quantize_with(LayerInput::gate_up, [&](const SampleRange& range, InputStatistics& statistics) {
      layer_.add_attention(step_, attended(range), hidden(range));
      statistics.add(device, normed(hidden(range), layer_.mlp_norm));
    });
    quantize_with(LayerInput::down, [&](const SampleRange& range, InputStatistics& statistics) {
      const MatrixView<const float> gate_up = layer_.gate_up(step_, hidden(range));
      const MatrixView<float> inner = workspace_.inner(gate_up.rows, source_.config->intermediate);
      run(device, SiluMul{gate_up, inner});
      statistics.add(device, inner);
    });
    order_gate_up_rows();
    for_each_range([&](const SampleRange& range) {
      layer_.add_mlp(step_, layer_.gate_up(step_, hidden(range)), hidden(range));
    });
    return std::move(result_);
  }

 private:
  static KvFormat kv_format(const Recipe& recipe) {
    if (recipe.kv_cache_bits == 4) return KvFormat::int4;
    return recipe.kv_cache_bits == 8 ? KvFormat::int8 : KvFormat::f16;
  }

  static std::vector<SampleRange> sample_ranges(const DeviceContext& device, const CalibrationState& state) {
    std::vector<SampleRange> ranges;
    int64_t rows = 0;
    for (int64_t i = 0; i < state.samples(); ++i) {
      const bool joins = device.cuda != nullptr && i > 0 && rows + state.rows(i) <= kGpuRows;
      if (!joins) {
        ranges.push_back({i, i});
        rows = 0;
      }
      ranges.back().last = i + 1;
      rows += state.rows(i);
    }
    return ranges;
  }

  int64_t blocks_of(int64_t sample) const { return (state_.rows(sample) + kBlockSize - 1) / kBlockSize; }

  /// Blocks of a cache that holds the samples of any one range.
  int64_t block_count() const {
    int64_t most = 0;
    for (const SampleRange& range : ranges_) {
      int64_t blocks = 0;
      for (int64_t i = range.first; i < range.last; ++i) blocks += blocks_of(i);
      most = std::max(most, blocks);
    }
    return most;
  }

  MatrixView<float> rows_of(Matrix<float>& matrix, const SampleRange& range) {
    return matrix.view().row_range(state_.first_row[static_cast<size_t>(range.first)],
                                   state_.first_row[static_cast<size_t>(range.last)]);
  }
  MatrixView<float> hidden(const SampleRange& range) { return rows_of(state_.hidden, range); }
  MatrixView<float> attended(const SampleRange& range) { return rows_of(state_.attended, range); }

  MatrixView<const float> normed(MatrixView<const float> x, const Buffer<float>& weight) {
    const MatrixView<float> out = workspace_.normed(x.rows, x.cols);
    run(*source_.device, RmsNorm{x, weight.data(), source_.config->rms_norm_eps, out});
    return out;
  }

  /// The samples' attention, alone in the cache.
  MatrixView<const float> attend(const SampleRange& range) {
    const MatrixView<float> rows = hidden(range);
    std::vector<int32_t> blocks(static_cast<size_t>(cache_.n_blocks()));
    std::iota(blocks.begin(), blocks.end(), 0);
    std::vector<int32_t> positions;
    std::vector<int64_t> slots;
    std::vector<SequenceSpan> sequences;
    int64_t block = 0, longest = 0;
    for (int64_t i = range.first; i < range.last; ++i) {
      const int64_t length = state_.rows(i);
      sequences.push_back(
          {static_cast<int64_t>(slots.size()), length, length, blocks.data() + static_cast<size_t>(block)});
      for (int64_t t = 0; t < length; ++t) {
        positions.push_back(static_cast<int32_t>(t));
        slots.push_back(block * kBlockSize + t);
      }
      block += blocks_of(i);
      longest = std::max(longest, length);
    }
    // The tokens themselves are not needed any more.
    const std::vector<int32_t> tokens(slots.size());
    const Batch batch =
        workspace_.batch().place(Batch{tokens, positions, slots, sequences}, kBlockSize, rows.rows, longest);
    return layer_.attend(step_, batch, cache_.layer(0), rows);
  }

  template <class Body>
  void for_each_range(const Body& body) {
    for (const SampleRange& range : ranges_) {
      body(range);
      if (source_.device->cuda != nullptr) cuda_synchronize(*source_.device);
      for (int64_t i = range.first; i < range.last; ++i) on_sample_();
    }
  }

  template <class Observe>
  void quantize_with(LayerInput input, const Observe& observe) {
    InputStatistics statistics(*source_.device, recipe_, shape_of(*source_.config, input).cols,
                               state_.hidden.rows());
    for_each_range([&](const SampleRange& range) { observe(range, statistics); });
    result_[static_cast<size_t>(input)] = quantize_input(source_, recipe_, input, &statistics);
    install(input);
  }

  void install(LayerInput input) {
    const QuantizedInput& quantized = result_[static_cast<size_t>(input)];
    // What down reads has been put in order by permuting the rows of gate and up.
    const bool ordered = std::is_sorted(quantized.permutation.begin(), quantized.permutation.end());
    const std::vector<int32_t> permutation =
        input == LayerInput::down || ordered ? std::vector<int32_t>{} : quantized.permutation;
    layer_.linears[static_cast<size_t>(input)] =
        make_low_bit_linear(*source_.device, quantized.weight, quantized.spec, permutation);
  }

  void order_gate_up_rows() {
    apply_down_order(result_);
    install(LayerInput::gate_up);
    std::vector<float> bias;
    for (const LayerVector& part : biases_of(*source_.config, source_.index, LayerInput::gate_up)) {
      const Buffer<float> values = source_.reader->vector(part.name, part.size);
      for (const int32_t channel : down_order(result_)) bias.push_back(values[channel]);
    }
    layer_.biases[static_cast<size_t>(LayerInput::gate_up)] =
        Buffer<float>::copy_of(bias, source_.device->memory);
  }

  static const std::vector<int32_t>& down_order(const QuantizedLayer& layer) {
    return layer[static_cast<size_t>(LayerInput::down)].permutation;
  }

 public:
  /// Rows of gate and of up in the order of down's permutation.
  static void apply_down_order(QuantizedLayer& layer) {
    const auto& order = down_order(layer);
    const auto inner = static_cast<int32_t>(order.size());
    std::vector<int32_t> rows(order);
    for (const int32_t channel : order) rows.push_back(inner + channel);
    LowBitStorage& weight = layer[static_cast<size_t>(LayerInput::gate_up)].weight;
    weight = permute_rows(weight, rows);
  }

 private:
  LayerSource source_;
  const Recipe& recipe_;
  CalibrationState& state_;
  const std::function<void()>& on_sample_;
  std::vector<SampleRange> ranges_;
  Workspace workspace_;
  StepContext step_;
  PagedKvCache cache_;
  DecoderLayer layer_;
  QuantizedLayer result_;
};

}  // namespace

QuantizedLayer quantize_layer(const LayerSource& source, const Recipe& recipe, CalibrationState* state,
                              const std::function<void()>& on_sample) {
  if (state != nullptr) return LayerQuantizer(source, recipe, *state, on_sample).run_all();
  QuantizedLayer layer;
  for (const LayerInput input : kLayerInputs) {
    layer[static_cast<size_t>(input)] = quantize_input(source, recipe, input, nullptr);
  }
  LayerQuantizer::apply_down_order(layer);
  return layer;
}

}  // namespace atom
