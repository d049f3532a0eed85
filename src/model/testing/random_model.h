#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "kvcache/paged_cache.h"
#include "model/model.h"

/// Models of random numbers, the same on every device, and steps through them: what tests compare devices by.
namespace atom::test_support {

inline ModelConfig small_config(int64_t head_dim, int64_t n_heads, int64_t n_kv_heads) {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden = 576;
  config.intermediate = 1536;
  config.n_layers = 3;
  config.n_heads = n_heads;
  config.n_kv_heads = n_kv_heads;
  config.head_dim = head_dim;
  config.vocab = 1000;
  config.max_positions = 1024;
  config.rms_norm_eps = 1e-5f;
  config.rope_theta = 10000.0f;
  return config;
}

/// With all that families have beside it: biases, norms of heads, a window on all layers but the first that
/// the steps below are longer than.
inline ModelConfig with_everything(ModelConfig config) {
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.head_norms = true;
  config.sliding_window = 70;
  config.first_window_layer = 1;
  config.rope_scaling.kind = RopeScaling::Kind::yarn;
  config.rope_scaling.factor = 4;
  config.rope_scaling.original_positions = 64;
  config.rope_scaling.attention_factor = 1.25;
  return config;
}

struct RandomCase {
  const char* name;
  int activation_bits;
  int64_t group;
  int outlier_bits;
  int lm_head_bits;
  KvFormat cache;
  bool rotate;
  /// Of the linear layers; `low_bit` has some outliers.
  enum class Kind { low_bit, full_precision, int8, fp8, weight_only } kind = Kind::low_bit;
  bool fp16_scales = false;

  bool quantized() const { return kind != Kind::full_precision; }

  std::optional<QuantizationConfig> quantization(const ModelConfig& shape) const {
    if (!quantized()) return std::nullopt;
    QuantizationConfig config;
    config.activation_bits = activation_bits;
    config.group_size = group;
    if (kind == Kind::low_bit) config.outlier_channels = {64, 64, 64, 128};
    if (kind == Kind::int8 || kind == Kind::fp8) {
      config.outlier_channels = {shape.hidden, shape.q_size(), shape.hidden, shape.intermediate};
    }
    config.fp8 = kind == Kind::fp8;
    config.outlier_bits = outlier_bits;
    config.integer_scales = kind == Kind::low_bit && outlier_bits == 8 && !fp16_scales;
    config.lm_head_bits = lm_head_bits;
    config.rotate_keys = rotate;
    return config;
  }
};

/// For the names of tests.
inline void PrintTo(const RandomCase& c, std::ostream* out) {
  *out << c.name;
}

inline constexpr RandomCase kRandomCases[] = {
    {"w4a4kv4", 4, 128, 8, 16, KvFormat::int4, false},
    {"w4a4kv4_rotated", 4, 128, 8, 16, KvFormat::int4, true},
    {"w4a8kv8_head8", 8, 128, 8, 8, KvFormat::int8, false},
    {"other_groups", 4, 64, 8, 16, KvFormat::f16, false},
    {"fp16_scales", 4, 128, 8, 16, KvFormat::int4, false, RandomCase::Kind::low_bit, true},
    {"fp16_outliers", 4, 128, 16, 16, KvFormat::f32, false},
    {"full_precision", 16, 0, 16, 16, KvFormat::f16, false, RandomCase::Kind::full_precision},
    {"w8a8_head8", 8, 128, 8, 8, KvFormat::f16, false, RandomCase::Kind::int8},
    {"fp8", 8, 128, 8, 16, KvFormat::f16, false, RandomCase::Kind::fp8},
    {"w4a16kv8", 16, 128, 8, 16, KvFormat::int8, false, RandomCase::Kind::weight_only},
};

/// Hidden states and logits of steps over three sequences: whole prompts of different lengths, a chunk beside
/// decode tokens, then decode steps, which a GPU records, with a row more than there are sequences.
class Steps {
 public:
  Steps(const Model& model, KvFormat format)
      : model_(model),
        cache_(model.kv_shape(), format, 64, 16, model.device().memory),
        workspace_(model.device()),
        tables_{BlockTable(cache_), BlockTable(cache_), BlockTable(cache_)} {}

  std::vector<float> run() {
    step({150, 33, 2});
    step({5, 1, 1});
    for (int i = 0; i < 4; ++i) step({1, 1, 1});
    return std::move(result_);
  }

 private:
  void step(std::array<int64_t, 3> counts) {
    std::vector<int32_t> tokens, positions;
    std::vector<int64_t> slots;
    std::vector<SequenceSpan> spans;
    for (size_t s = 0; s < counts.size(); ++s) {
      const int64_t begin = tables_[s].length();
      tables_[s].append(counts[s], slots);
      spans.push_back(
          {static_cast<int64_t>(tokens.size()), counts[s], tables_[s].length(), tables_[s].blocks()});
      for (int64_t i = 0; i < counts[s]; ++i) {
        tokens.push_back(static_cast<int32_t>((begin + i) * 37 + static_cast<int64_t>(s) * 11) %
                         static_cast<int32_t>(model_.config().vocab));
        positions.push_back(static_cast<int32_t>(begin + i));
      }
    }
    const MatrixView<const float> hidden =
        model_.forward({tokens, positions, slots, spans}, cache_, workspace_);
    Buffer<float> logits(static_cast<size_t>(hidden.rows * model_.config().vocab), model_.device().memory);
    keep(hidden.data, hidden.rows * hidden.cols);
    model_.logits(hidden, {logits.data(), hidden.rows, model_.config().vocab}, workspace_);
    keep(logits.data(), static_cast<int64_t>(logits.size()));
  }

  void keep(const float* values, int64_t count) {
    const size_t had = result_.size();
    result_.resize(had + static_cast<size_t>(count));
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    if (Memory* memory = model_.device().memory) {
      memory->download(result_.data() + had, values, bytes);
    } else {
      std::memcpy(result_.data() + had, values, bytes);
    }
  }

  const Model& model_;
  PagedKvCache cache_;
  Workspace workspace_;
  std::array<BlockTable, 3> tables_;
  std::vector<float> result_;
};

/// Everything that the steps of such a model give on a device.
inline std::vector<float> run_random_model(const DeviceContext& device, const RandomCase& c,
                                           const ModelConfig& config) {
  const auto model = Model::random(config, c.quantization(config), device, 7);
  return Steps(*model, c.cache).run();
}

}  // namespace atom::test_support
