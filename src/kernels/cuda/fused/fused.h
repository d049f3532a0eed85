#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/kv_view.h"
#include "kernels/quantized.h"
#include "tensor/dtype.h"

/// The ops between matrix products and attention, on CUDA. Each takes a struct of device pointers and a
/// stream, and is asynchronous; all may be captured in a graph. Every float operation is the CPU reference's,
/// in its order, so results are bit-identical (docs/numerics.md); where that is not so, the op says it. A
/// call whose arguments break a stated condition, or whose launch fails, throws Error. Nothing is allocated.
///
/// Kernels are launched with programmatic dependent launch: what an op is given as a weight, a permutation,
/// cosines, positions or slots may be read before the kernel ahead of it in the stream has ended, so kernels
/// must not write them (copies may); all else is not.
namespace atom::cuda {

/// A row-major float matrix in f32, f16 or bf16; row r begins at element r * stride.
struct ConstMatrix {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};
struct MutableMatrix {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};

enum class ActivationForm : uint8_t {
  /// ActivationBlocks of kernels/cuda/layout.h: integer scales, groups of 128 and INT8 outliers only.
  blocks,
  /// values [tokens, row_stride], scales [tokens, groups + 1], outliers_fp16 [tokens, n_outlier] as
  /// QuantizedActivations in kernels/quantized.h describes them; any ChannelLayout.
  rows,
};

/// Where quantized activations go; padding of channels is written as zeros, rows beyond `tokens` are not
/// written. Sums are computed of blocks only, as kernels/cuda/layout.h says.
struct QuantizedOutput {
  ActivationSpec spec;
  ActivationForm form = ActivationForm::blocks;
  int8_t* values = nullptr;
  float* scales = nullptr;
  float* units = nullptr;  ///< Form `rows` with integer scales: [tokens]
  float* outliers_fp16 = nullptr;

  /// First outlier and length of a row in the form `rows`.
  int64_t outlier_offset() const { return (spec.layout.k_normal() + 63) / 64 * 64; }
  int64_t row_stride() const { return outlier_offset() + (spec.layout.n_outlier + 63) / 64 * 64; }
};

/// out[t] = table[tokens[t]]; table [vocab, hidden] f32, f16 or bf16, out [tokens, hidden] f32.
struct EmbeddingArgs {
  const int32_t* tokens = nullptr;
  ConstMatrix table;
  MutableMatrix out;
};
void embedding(const EmbeddingArgs& args, cudaStream_t stream);

/// out = x / sqrt(mean(x^2) + eps) * weight. x f32 (out of any type) or of out's type; weight [cols] f32.
struct RmsNormArgs {
  ConstMatrix x;
  const float* weight = nullptr;
  float eps = 0.0f;
  MutableMatrix out;
};
void rms_norm(const RmsNormArgs& args, cudaStream_t stream);

/// RmsNorm, reordering (permutation[i] is the channel that comes i-th, null: identity) and quantization.
struct RmsNormQuantizeArgs {
  ConstMatrix x;
  const float* weight = nullptr;
  float eps = 0.0f;
  const int32_t* permutation = nullptr;
  QuantizedOutput out;
};
void rms_norm_quantize(const RmsNormQuantizeArgs& args, cudaStream_t stream);

/// Reordering and quantization.
struct ReorderQuantizeArgs {
  ConstMatrix x;
  const int32_t* permutation = nullptr;
  QuantizedOutput out;
};
void reorder_quantize(const ReorderQuantizeArgs& args, cudaStream_t stream);

/// out = silu(gate) * up; gate_up [tokens, 2 * inner] f32 (out of any type) or of out's type.
struct SiluMulArgs {
  ConstMatrix gate_up;
  MutableMatrix out;
};
void silu_mul(const SiluMulArgs& args, cudaStream_t stream);

struct SiluMulQuantizeArgs {
  ConstMatrix gate_up;
  QuantizedOutput out;
};
void silu_mul_quantize(const SiluMulQuantizeArgs& args, cudaStream_t stream);

/// x += bias, x f32 [tokens, n], bias [n].
struct AddBiasArgs {
  MutableMatrix x;
  const float* bias = nullptr;
};
void add_bias(const AddBiasArgs& args, cudaStream_t stream);

/// RmsNorm of every head by itself, in place. x f32 [tokens, heads * head_dim], weight [head_dim].
struct HeadNormArgs {
  MutableMatrix x;
  int64_t head_dim = 0;
  const float* weight = nullptr;
  float eps = 0.0f;
};
void head_norm(const HeadNormArgs& args, cudaStream_t stream);

/// RoPE on q and k, a Hadamard transform of their heads where `rotate`, then k and v into the cache:
/// RopeAppend of kernels/ops.h. q [tokens, n_heads * head_dim] f32 is changed in place, k and v [tokens,
/// n_kv_heads * head_dim] are only read. cos, sin [positions, head_dim / 2]; slots[t] < 0: not stored.
struct RopeAppendArgs {
  int64_t tokens = 0;
  int64_t n_heads = 0;
  float* q = nullptr;
  int64_t q_stride = 0;
  const float* k = nullptr;
  int64_t k_stride = 0;
  const float* v = nullptr;
  int64_t v_stride = 0;
  const int32_t* positions = nullptr;
  const int64_t* slots = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  bool rotate = false;
  KvLayerView cache;
};
void rope_append(const RopeAppendArgs& args, cudaStream_t stream);

/// out[t] = log(sum_i e^x[t, i]), x f32. The sum is the CPU's to the bit; its logarithm (double) may differ
/// by an ulp, since libraries choose their last bit.
struct LogSumExpArgs {
  ConstMatrix x;
  double* out = nullptr;
};
void log_sum_exp(const LogSumExpArgs& args, cudaStream_t stream);

/// out = x, rounded to nearest even; f32 to f16 or bf16, or f16 or bf16 to f32. Overflow gives infinity.
struct ConvertArgs {
  const void* x = nullptr;
  DType from = DType::f32;
  void* out = nullptr;
  DType to = DType::f32;
  int64_t count = 0;
};
void convert(const ConvertArgs& args, cudaStream_t stream);

/// Canonical weights (device pointers) to WeightTiles of kernels/cuda/layout.h: integer scales, groups of 128
/// and INT8 outliers only. `packed` has WeightTiles{n, groups, n_outlier}.bytes() bytes, aligned to 16; all
/// of them are written.
struct PackWeightArgs {
  LowBitWeight weight;
  uint8_t* packed = nullptr;
};
void pack_weight(const PackWeightArgs& args, cudaStream_t stream);

/// y = x * w^T (+ y where `accumulate`), y f32 [tokens, n], in the contract's order, from canonical weights
/// (device pointers) of any layout. x is what a quantizing op has written for the same layout. For layouts
/// that no fast kernel takes, and as their reference; slow.
struct LinearLowBitArgs {
  QuantizedOutput x;
  LowBitWeight w;
  MutableMatrix y;
  bool accumulate = false;
};
void linear_low_bit_general(const LinearLowBitArgs& args, cudaStream_t stream);

}  // namespace atom::cuda
