#include "op_choices.h"

#include <algorithm>

namespace atom::cli {
namespace {

/// Asks the op tables about steps of one token whose data do not exist: selection looks at shapes and types
/// alone.
class Prober {
 public:
  explicit Prober(const Model& model) : model_(&model) {}

  std::vector<OpChoice> run() {
    const ModelConfig& config = model_->config();
    add("embedding lookup", EmbeddingLookup{{}, DType::f32, nullptr, row<float>(config.hidden)});
    add("final norm",
        RmsNorm{row<const float>(config.hidden), nullptr, config.rms_norm_eps, row<float>(config.hidden)});
    if (model_->quantization() && model_->quantization()->activation_bits != 16) {
      add_quantized(*model_->quantization());
    } else {
      add("norm",
          RmsNorm{row<const float>(config.hidden), nullptr, config.rms_norm_eps, row<float>(config.hidden)});
      add("silu * up", SiluMul{row<const float>(2 * config.intermediate), row<float>(config.intermediate)});
    }
    if (config.qkv_bias) add("add bias", AddBias{row<float>(config.qkv_size()), nullptr});
    if (config.head_norms) {
      add("norm of heads",
          HeadNorm{row<float>(config.q_size()), config.head_dim, nullptr, config.rms_norm_eps});
    }
    add_attention();
    add("change logits", ChangeLogits{row<float>(config.vocab), {}, {}, {}, {}});
    add("sample", Sample{row<const float>(config.vocab), {}, {}});
    add("log-sum-exp", LogSumExp{row<const float>(config.vocab), {}});
    add("top columns", TopColumns{row<const float>(config.vocab), 1, {}, {}});
    return std::move(choices_);
  }

 private:
  template <class T>
  static MatrixView<T> row(int64_t cols) {
    return {nullptr, 1, cols};
  }

  template <class Op>
  void add(const char* name, const Op& op) {
    choices_.push_back(
        {name, select(model_->device(), op).name, implementations_for<Op>(model_->device()).size() == 1, ""});
  }

  void add_quantized(const QuantizationConfig& quantization) {
    const ModelConfig& config = model_->config();
    QuantizedActivations out(model_->device().memory);
    out.resize(1, activation_spec_of(quantization, config.hidden, LayerInput::qkv));
    add("norm + reorder + quantize",
        RmsNormQuantize{row<const float>(config.hidden), nullptr, config.rms_norm_eps, nullptr, &out});
    out.resize(1, activation_spec_of(quantization, config.q_size(), LayerInput::o));
    add("reorder + quantize", ReorderQuantize{row<const float>(config.q_size()), nullptr, &out});
    out.resize(1, activation_spec_of(quantization, config.intermediate, LayerInput::down));
    add("silu * up + quantize", SiluMulQuantize{row<const float>(2 * config.intermediate), &out});
  }

  void add_attention() {
    const ModelConfig& config = model_->config();
    KvLayerView cache;
    cache.format = model_->kv_format();
    cache.n_kv_heads = config.n_kv_heads;
    cache.head_dim = config.head_dim;
    const bool rotate = model_->quantization() && model_->quantization()->rotate_keys;
    add(rotate ? "rope + rotate + append to cache" : "rope + append to cache",
        RopeAppend{row<float>(config.q_size()),
                   row<float>(config.kv_size()),
                   row<const float>(config.kv_size()),
                   {},
                   {},
                   nullptr,
                   nullptr,
                   rotate,
                   cache});
    Attention attention{row<const float>(config.q_size()), {}, cache, config.n_heads, 1.0f,
                        row<float>(config.q_size())};
    if (config.window_layers() < config.n_layers) add("attention", attention);
    if (config.window_layers() == 0) return;
    const std::string without = select(model_->device(), attention).name;
    attention.window = config.sliding_window;
    add("attention in a window", attention);
    const bool matters = config.sliding_window < config.max_positions;
    if (matters && choices_.back().implementation != without) {
      choices_.back().slow_reason = without + " knows no window";
    }
  }

  const Model* model_;
  std::vector<OpChoice> choices_;
};

}  // namespace

std::vector<OpChoice> op_choices(const Model& model) {
  return Prober(model).run();
}

}  // namespace atom::cli
