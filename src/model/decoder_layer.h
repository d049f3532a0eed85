#pragma once

#include <array>
#include <memory>
#include <span>

#include "checkpoint/packed.h"
#include "kernels/cuda.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/linear.h"
#include "model/rope_table.h"

namespace atom {

/// Tokens of several sequences, prefill and decode mixed, in one step.
struct Batch {
  std::span<const int32_t> tokens;          // [tokens]
  std::span<const int32_t> positions;       // [tokens]
  std::span<const int64_t> slots;           // [tokens] where keys and values go: block * block_size + offset
  std::span<const SequenceSpan> sequences;  // rows of the batch they own
  /// At least n_rows and context of every sequence, where it has been placed.
  int64_t max_rows = 0;
  int64_t max_context = 0;
  /// At most n_rows of every sequence that has rows.
  int64_t min_rows = 0;
};

/// A batch in the memory that ops of a device read. On the host the batch is taken as it is. On a GPU it is
/// copied into one allocation, always in the same place for the same `rows` and `max_context`, so that a
/// recorded step finds the next batch where it found the first.
class PlacedBatch {
 public:
  explicit PlacedBatch(const DeviceContext& device) : device_(&device) {}

  /// Of `batch`, which has as many sequences as it likes, with `rows` rows (rows that nobody owns are added:
  /// they are stored nowhere) and room for `max_context` tokens a sequence. Valid until the next call.
  Batch place(const Batch& batch, int64_t block_size, int64_t rows, int64_t max_context);
  const void* data() const { return bytes_.data(); }

 private:
  const DeviceContext* device_;
  std::vector<std::byte> staging_;
  Buffer<std::byte> bytes_;
};

/// Activations of a step, in the device's memory. Reused from step to step; memory only grows.
class Workspace {
 public:
  /// `device` must outlive it.
  explicit Workspace(const DeviceContext& device)
      : device_(&device), quantized_(device.memory), batch_(device) {}

  /// A view [rows, cols] whose contents are unspecified.
  MatrixView<float> normed(int64_t rows, int64_t cols) { return view(normed_, rows, cols); }
  MatrixView<float> qkv(int64_t rows, int64_t cols) { return view(qkv_, rows, cols); }
  MatrixView<float> attention(int64_t rows, int64_t cols) { return view(attention_, rows, cols); }
  MatrixView<float> gate_up(int64_t rows, int64_t cols) { return view(gate_up_, rows, cols); }
  MatrixView<float> inner(int64_t rows, int64_t cols) { return view(inner_, rows, cols); }
  MatrixView<float> hidden(int64_t rows, int64_t cols) { return view(hidden_, rows, cols); }
  QuantizedActivations& quantized() { return quantized_; }
  /// Covers the positions [0, positions).
  const RopeTable& rope(int64_t positions, const ModelConfig& config) {
    rope_.grow(positions, config, device_->memory);
    return rope_;
  }
  PlacedBatch& batch() { return batch_; }
  CudaGraphs& graphs() { return graphs_; }
  /// Where the memory lies: recorded steps are good as long as it stays there.
  std::vector<int64_t> addresses() const;

 private:
  MatrixView<float> view(Buffer<float>& buffer, int64_t rows, int64_t cols);

  const DeviceContext* device_;
  Buffer<float> normed_, qkv_, attention_, gate_up_, inner_, hidden_;
  QuantizedActivations quantized_;
  RopeTable rope_;
  PlacedBatch batch_;
  CudaGraphs graphs_;
};

/// What every layer of a step shares.
struct StepContext {
  const DeviceContext* device;
  const ModelConfig* config;
  const RopeTable* rope;  // covers the positions of the batch
  bool rotate_keys;
  Workspace* workspace;
};

/// One decoder layer: a list of ops around four fused linear layers. The stages are separate so that
/// calibration can look between them; `forward` is all of them in order. `hidden` is the residual stream
/// [tokens, hidden], changed in place.
class DecoderLayer {
 public:
  Buffer<float> attention_norm;  // [hidden]
  Buffer<float> mlp_norm;        // [hidden]
  /// Of every head of q and k, before RoPE, [head_dim]; empty in families without them.
  Buffer<float> q_norm;
  Buffer<float> k_norm;
  /// Tokens that a token sees; 0: all before it.
  int64_t window = 0;
  /// Indexed by LayerInput: qkv [q + 2 kv, hidden], o [hidden, q], gate_up [2 * intermediate, hidden], down.
  std::array<std::unique_ptr<Linear>, 4> linears;
  /// What is added to their outputs, indexed alike, [out]; empty where there is none.
  std::array<Buffer<float>, 4> biases;

  Linear& linear(LayerInput input) const { return *linears[static_cast<size_t>(input)]; }

  void forward(const StepContext& step, const Batch& batch, const KvLayerView& cache,
               MatrixView<float> hidden) const;

  /// Norm, qkv, norms of heads, RoPE and append, attention. Returns the attention's output [tokens, n_heads *
  /// head_dim], in the workspace.
  MatrixView<const float> attend(const StepContext& step, const Batch& batch, const KvLayerView& cache,
                                 MatrixView<const float> hidden) const;
  /// hidden += o(attended).
  void add_attention(const StepContext& step, MatrixView<const float> attended,
                     MatrixView<float> hidden) const;
  /// Norm and gate_up. Returns [tokens, 2 * intermediate], in the workspace.
  MatrixView<const float> gate_up(const StepContext& step, MatrixView<const float> hidden) const;
  /// hidden += down(silu(gate) * up).
  void add_mlp(const StepContext& step, MatrixView<const float> gate_up, MatrixView<float> hidden) const;

 private:
  void add_bias(const StepContext& step, LayerInput input, MatrixView<float> y) const;
};

/// x normalized (by `weight`) for `linear`, in the form that it asks for; then y = linear(...).
void norm_linear(const StepContext& step, MatrixView<const float> x, const Buffer<float>& weight,
                 const Linear& linear, MatrixView<float> y);

}  // namespace atom
