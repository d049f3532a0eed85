#include "quant/layer_quantizer.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "quant/activation_sample.h"
#include "quant/gptq.h"
#include "quant/outliers.h"
#include "quant/parallel.h"
#include "quant/rounding.h"

namespace atom {
namespace {

/// Rows of an input that the activation clip is searched on.
constexpr int64_t kClipSearchRows = 1024;

/// What the calibration set says about one input.
struct InputStatistics {
  Hessian hessian;
  ActivationSample sample;

  InputStatistics(const Recipe& recipe, int64_t k, int64_t total_rows)
      : hessian(k, !recipe.gptq), sample(recipe.search_clips ? kClipSearchRows : 0, total_rows, k) {}

  void add(const DeviceContext& device, MatrixView<const float> x) {
    hessian.add(device, x);
    sample.offer(x);
  }
};

/// The stacked weights that read `input`, as float, [n, k].
Matrix<float> load_weight(const LayerSource& source, LayerInput input) {
  const LinearShape shape = shape_of(*source.config, input);
  std::vector<std::string> names;
  for (const auto& linear : linears_of(input))
    names.push_back(layer_prefix(source.index) + linear + ".weight");
  const Tensor tensor = source.reader->stacked(names, shape.rows, shape.cols);
  Matrix<float> weight(tensor.shape[0], tensor.shape[1]);
  to_float(tensor, weight.span());
  return weight;
}

Matrix<float> permute_columns(const Matrix<float>& weight, const std::vector<int32_t>& permutation) {
  Matrix<float> out(weight.rows(), weight.cols());
  for (int64_t r = 0; r < weight.rows(); ++r) {
    for (int64_t c = 0; c < weight.cols(); ++c) out(r, c) = weight(r, permutation[static_cast<size_t>(c)]);
  }
  return out;
}

/// Chooses order, scales and clip of one input and quantizes what reads it. `statistics` is null without
/// calibration.
QuantizedInput quantize_input(const LayerSource& source, const Recipe& recipe, LayerInput input,
                              const InputStatistics* statistics) {
  const DeviceContext& device = *source.device;
  const std::string name = layer_prefix(source.index) + name_of(input);
  Matrix<float> original = load_weight(source, input);
  QuantizedInput out;
  out.spec.layout = recipe.layout(original.cols(), name);
  out.spec.bits = recipe.activation_bits;
  out.spec.clip = recipe.activation_clip;

  std::vector<double> squares(static_cast<size_t>(original.cols()), 0.0);
  if (statistics != nullptr) squares = statistics->hessian.diagonal();
  if (out.spec.layout.n_outlier > 0) {
    out.permutation = outlier_permutation(squares, out.spec.layout.n_outlier);
  } else {
    out.permutation.resize(squares.size());
    std::iota(out.permutation.begin(), out.permutation.end(), 0);
  }
  std::vector<double> importance;
  if (recipe.search_clips) {
    for (const int32_t channel : out.permutation) importance.push_back(squares[static_cast<size_t>(channel)]);
  }
  const ScaleChooser chooser(recipe.weight_clip, std::move(importance));

  Matrix<float> weight = permute_columns(original, out.permutation);
  if (recipe.search_clips) {
    out.spec.clip =
        search_activation_clip(device, statistics->sample.rows(), weight.view(), out.permutation, out.spec);
  }
  if (recipe.gptq) {
    const GptqFactor factor(statistics->hessian.permuted(out.permutation), recipe.damping, name);
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

/// Quantizes the inputs of one layer in turn, each with its own pass over the samples.
class LayerQuantizer {
 public:
  LayerQuantizer(const LayerSource& source, const Recipe& recipe, CalibrationState& state,
                 const std::function<void()>& on_sample)
      : source_(source),
        recipe_(recipe),
        state_(state),
        on_sample_(on_sample),
        workspace_(*source.device),
        step_{source.device, source.config, source.rope, recipe.rotate_keys, &workspace_},
        cache_(cache_shape(*source.config), kv_format(recipe), blocks_for(state)) {
    layer_.attention_norm =
        source.reader->vector(layer_prefix(source.index) + "input_layernorm.weight", source.config->hidden);
    layer_.mlp_norm = source.reader->vector(layer_prefix(source.index) + "post_attention_layernorm.weight",
                                            source.config->hidden);
    for (int64_t i = 0; i < cache_.n_blocks(); ++i) blocks_.push_back(static_cast<int32_t>(i));
  }

  QuantizedLayer run_all() {
    quantize_with(LayerInput::qkv, [&](int64_t sample, InputStatistics& statistics) {
      statistics.add(*source_.device, normed(hidden(sample), layer_.attention_norm));
    });
    quantize_with(LayerInput::o, [&](int64_t sample, InputStatistics& statistics) {
      const MatrixView<const float> attended = attend(sample);
      std::copy_n(attended.data, attended.rows * attended.cols,
                  state_.attended.row(state_.first_row[sample]));
      statistics.add(*source_.device, attended);
    });
    quantize_with(LayerInput::gate_up, [&](int64_t sample, InputStatistics& statistics) {
      const int64_t first = state_.first_row[sample];
      layer_.add_attention(step_, state_.attended.view().row_range(first, first + state_.rows(sample)),
                           hidden(sample));
      statistics.add(*source_.device, normed(hidden(sample), layer_.mlp_norm));
    });
    quantize_with(LayerInput::down, [&](int64_t sample, InputStatistics& statistics) {
      const MatrixView<const float> gate_up = layer_.gate_up(step_, hidden(sample));
      const MatrixView<float> inner = workspace_.inner(gate_up.rows, source_.config->intermediate);
      run(*source_.device, SiluMul{gate_up, inner});
      statistics.add(*source_.device, inner);
    });
    order_gate_up_rows();
    for_each_sample([&](int64_t sample) {
      layer_.add_mlp(step_, layer_.gate_up(step_, hidden(sample)), hidden(sample));
    });
    return std::move(result_);
  }

 private:
  static KvShape cache_shape(const ModelConfig& config) { return {1, config.n_kv_heads, config.head_dim}; }
  static KvFormat kv_format(const Recipe& recipe) {
    if (recipe.kv_cache_bits == 4) return KvFormat::int4;
    return recipe.kv_cache_bits == 8 ? KvFormat::int8 : KvFormat::f16;
  }
  static int64_t blocks_for(const CalibrationState& state) {
    int64_t longest = 0;
    for (int64_t i = 0; i < state.samples(); ++i) longest = std::max(longest, state.rows(i));
    constexpr int64_t kBlockSize = 16;
    return (longest + kBlockSize - 1) / kBlockSize;
  }

  MatrixView<float> hidden(int64_t sample) {
    return state_.hidden.view().row_range(state_.first_row[sample], state_.first_row[sample + 1]);
  }

  MatrixView<const float> normed(MatrixView<const float> x, const Buffer<float>& weight) {
    const MatrixView<float> out = workspace_.normed(x.rows, x.cols);
    run(*source_.device, RmsNorm{x, weight.data(), source_.config->rms_norm_eps, out});
    return out;
  }

  /// The sample's attention, alone in the cache.
  MatrixView<const float> attend(int64_t sample) {
    const int64_t rows = state_.rows(sample);
    positions_.resize(static_cast<size_t>(rows));
    slots_.resize(static_cast<size_t>(rows));
    std::iota(positions_.begin(), positions_.end(), 0);
    std::iota(slots_.begin(), slots_.end(), 0);
    const SequenceSpan span{0, rows, rows, blocks_.data()};
    return layer_.attend(step_, Batch{{}, positions_, slots_, {&span, 1}}, cache_.layer(0), hidden(sample));
  }

  template <class Body>
  void for_each_sample(const Body& body) {
    for (int64_t sample = 0; sample < state_.samples(); ++sample) {
      body(sample);
      on_sample_();
    }
  }

  template <class Observe>
  void quantize_with(LayerInput input, const Observe& observe) {
    InputStatistics statistics(recipe_, shape_of(*source_.config, input).cols, state_.hidden.rows());
    for_each_sample([&](int64_t sample) { observe(sample, statistics); });
    QuantizedInput& quantized = result_[static_cast<size_t>(input)];
    quantized = quantize_input(source_, recipe_, input, &statistics);
    install(input);
  }

  void install(LayerInput input) {
    const QuantizedInput& quantized = result_[static_cast<size_t>(input)];
    // What down reads has been put in order by permuting the rows of gate and up.
    std::vector<int32_t> permutation =
        input == LayerInput::down ? std::vector<int32_t>{} : quantized.permutation;
    layer_.linears[static_cast<size_t>(input)] =
        make_low_bit_linear(*source_.device, quantized.weight, quantized.spec, std::move(permutation));
  }

  void order_gate_up_rows() {
    apply_down_order(result_);
    install(LayerInput::gate_up);
  }

 public:
  /// Rows of gate and of up in the order of down's permutation.
  static void apply_down_order(QuantizedLayer& layer) {
    const auto& order = layer[static_cast<size_t>(LayerInput::down)].permutation;
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
  Workspace workspace_;
  StepContext step_;
  PagedKvCache cache_;
  std::vector<int32_t> blocks_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
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
