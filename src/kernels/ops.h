#pragma once

#include <cstdint>
#include <span>

#include "kernels/kv_view.h"
#include "kernels/quantized.h"
#include "kernels/sampling.h"
#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

/// The operations a decoder is made of. Each op is a plain struct of views (its arguments); each has one
/// ordered table of implementations, the reference last; `run` takes the first that supports the arguments on
/// the device.
///
/// Numerics common to all (docs/numerics.md): activations are float (on a GPU's way into a float linear layer
/// also f16 or bf16: FloatMatrix); reductions over a row (sum of squares)
/// use 16 interleaved partial sums (element i goes to sum i mod 16) folded as 8+8, 4+4, 2+2, 1+1; exp is the
/// polynomial of kernels/numerics.h; dot products of float accumulate by fma over ascending channels. All
/// implementations but the OpenBLAS one are therefore bit-identical to the reference, and no result depends
/// on what else is in the batch.
namespace atom {

/// out[t] = table[tokens[t]]. table [vocab, hidden] f32, f16 or bf16; out [tokens, hidden].
struct EmbeddingLookup {
  std::span<const int32_t> tokens;
  DType dtype;
  const void* table;
  MatrixView<float> out;
};

/// out = x / sqrt(mean(x^2) + eps) * weight, row by row. x, out [tokens, hidden]; weight [hidden].
struct RmsNorm {
  MatrixView<const float> x;
  const float* weight;
  float eps;
  FloatOutput out;
};

/// RmsNorm, then reordering, then quantization, fused (paper section 4.3). permutation[i] is the channel that
/// comes i-th, null for the identity. `out` has been resized to x.rows tokens.
struct RmsNormQuantize {
  MatrixView<const float> x;
  const float* weight;
  float eps;
  const int32_t* permutation;
  QuantizedActivations* out;
};

/// Reordering and quantization of x [tokens, k]; permutation as above.
struct ReorderQuantize {
  MatrixView<const float> x;
  const int32_t* permutation;
  QuantizedActivations* out;
};

/// out = silu(gate) * up. gate_up [tokens, 2 * inner] holds gate, then up; out [tokens, inner].
struct SiluMul {
  MatrixView<const float> gate_up;
  FloatOutput out;
};

/// SiluMul, then quantization (no reordering: the rows of gate and up were permuted offline).
struct SiluMulQuantize {
  MatrixView<const float> gate_up;
  QuantizedActivations* out;
};

/// out[t] = log(sum_i e^x[t, i]), the normalizer of a softmax: x[t, i] - out[t] is a log-probability. x
/// [tokens, vocab]. Terms in float, their sum in double: within 1e-6 of exact arithmetic. NaN for a row with
/// NaN or +inf, or without a finite element.
struct LogSumExp {
  MatrixView<const float> x;
  std::span<double> out;
};

/// out[t] = x[t, columns[t]]. x [tokens, vocab].
struct PickColumns {
  MatrixView<const float> x;
  std::span<const int32_t> columns;
  std::span<float> out;
};

/// out[t] = a token drawn from the softmax of logits[t, ...] / temperature, [rows, vocab], as params[t] says:
/// of the tokens that top-k keeps, then top-p of those, then min-p. Temperature 0: the
/// largest logit's, of equal ones the first. NaN and
/// infinities are passed over; -1 for a row without a finite logit. vocab at most sampling::kMaxVocabulary.
/// The same tokens on every device, whatever else is in the batch (docs/numerics.md, "Sampling").
struct Sample {
  MatrixView<const float> logits;
  std::span<const SampleParams> params;
  std::span<int32_t> out;
};

/// Applies changes [first[t], first[t + 1]) to row t, in order, then sets the logits of tokens that its mask
/// leaves out to -inf. logits [rows, vocab]; first [rows + 1]; mask_of[t] is a row of masks [masks,
/// (vocab + 31) / 32] (bit b of word w: token 32 w + b stays), or -1.
struct ChangeLogits {
  MatrixView<float> logits;
  std::span<const int32_t> first;
  std::span<const LogitChange> changes;
  std::span<const int32_t> mask_of;
  std::span<const uint32_t> masks;
};

inline constexpr int64_t kMaxTopColumns = 32;

/// The k largest x[t, ...], largest first, of equal ones the first column first. NaN and infinities are
/// passed over; -1 and -inf where there are fewer. x [tokens, vocab]; columns, values [tokens, k]; k 1 to
/// kMaxTopColumns.
struct TopColumns {
  MatrixView<const float> x;
  int64_t k;
  std::span<int32_t> columns;
  std::span<float> values;
};

/// out[i] = offset + scale * a number that is normal but for its tails (numerics::random_normal) for f32,
/// f16, bf16 and f8; a byte of any value for u8, and in [-127, 127] for i8. The same on every device for a
/// seed. With a `quantum`, numbers are multiples of it, 1 to 16.
struct RandomFill {
  void* out;
  int64_t count;
  DType dtype;
  float scale;
  float offset;
  uint64_t seed;
  float quantum = 0.0f;
};

/// x[t, i] += bias[i]. x [tokens, n]; bias [n]. Apart from the matrix product before it, so that quantized
/// kernels need not know of it.
struct AddBias {
  MatrixView<float> x;
  const float* bias;
};

/// RmsNorm of every head by itself, in place. x [tokens, heads * head_dim]; weight [head_dim], the same for
/// all heads.
struct HeadNorm {
  MatrixView<float> x;
  int64_t head_dim;
  const float* weight;
  float eps;
};

/// y[m, n] = sum_k x[m, k] * w[n, k] (+ y where `accumulate`). w [n, k] row-major in f32, f16 or bf16.
struct LinearFloat {
  FloatInput x;
  DType dtype;
  const void* w;
  MatrixView<float> y;
  bool accumulate = false;
};

/// y = x * w^T for quantized x and w (+ y where `accumulate`). Exact int32 sums inside a group, then
/// acc = fma(float(sum), sx * sw, acc) from 0, groups ascending, outliers last (FP16 outliers: acc = fma(x,
/// w, acc), channels ascending; FP8 outliers: as INT8 ones, of a float sum = fma(qx, qw, sum), channels
/// ascending); y = acc, or y + acc. With integer scales acc = float(S) * (ux * uw), S the exact int32 sum of
/// all groups' and the outliers' sums, each times its two multipliers.
struct LinearLowBit {
  const QuantizedActivations* x;
  const PreparedWeight* w;
  MatrixView<float> y;
  bool accumulate = false;
};

/// y = x * w^T (+ y where `accumulate`) for float x and INT4 w in groups, without outliers (W4A16):
/// LinearFloat with the f16 weights fp16(q * scale).
struct LinearWeightOnly {
  FloatInput x;
  const PreparedWeight* w;
  MatrixView<float> y;
  bool accumulate = false;
};

/// RoPE on q and k (half-split pairs (i, i + head_dim/2) of Hugging Face Llama), then, where `rotate`, a
/// normalized Hadamard transform of every head of q and k, then k and v are quantized and stored at their
/// slots of the paged cache.
///
/// q [tokens, n_heads * head_dim] is changed in place; k, v [tokens, n_kv_heads * head_dim] may be
/// overwritten. cos, sin [positions, head_dim / 2]. slots[t] = block * block_size + offset; negative: do not
/// store.
struct RopeAppend {
  MatrixView<float> q;
  MatrixView<float> k;
  MatrixView<const float> v;
  std::span<const int32_t> positions;
  std::span<const int64_t> slots;
  const float* cos;
  const float* sin;
  bool rotate;
  KvLayerView cache;
};

/// A sequence's share of a ragged batch: rows [first_row, first_row + n_rows) of the batch are its newest
/// tokens, the last of `context` tokens that are in the cache (these rows included). blocks[i] is the block
/// of tokens [i * block_size, ...).
struct SequenceSpan {
  int64_t first_row;
  int64_t n_rows;
  int64_t context;
  const int32_t* blocks;
};

/// Causal attention of every row over its sequence's cached keys and values; prefill chunks and decode rows
/// may be mixed. q, out [tokens, n_heads * head_dim]; query head h uses KV head h / (n_heads / n_kv_heads).
/// Scores are scaled by `scale`. A row at position p sees the keys of positions 0..p, or, with a `window`
/// that is not 0, the last `window` of these: p - window + 1..p. max_rows and max_context bound n_rows and
/// context of all sequences; only devices that cannot read `sequences` on the host need them. Sequences with
/// rows have at least min_rows.
struct Attention {
  MatrixView<const float> q;
  std::span<const SequenceSpan> sequences;
  KvLayerView cache;
  int64_t n_heads;
  float scale;
  MatrixView<float> out;
  int64_t max_rows = 0;
  int64_t max_context = 0;
  int64_t min_rows = 0;
  int64_t window = 0;
};

/// One implementation of an op.
template <class Op>
struct Implementation {
  const char* name;
  bool (*supports)(const DeviceContext&, const Op&);
  void (*run)(const DeviceContext&, const Op&);
};

/// `supports` of an implementation that takes all arguments, on every device of its table.
template <class Op>
bool always(const DeviceContext&, const Op&) {
  return true;
}

/// The CPU's implementations of an op in order of preference; the last one supports everything.
template <class Op>
std::span<const Implementation<Op>> implementations();

/// A GPU's implementations; empty in builds without CUDA.
template <class Op>
std::span<const Implementation<Op>> cuda_implementations();

/// What `device` chooses from.
template <class Op>
std::span<const Implementation<Op>> implementations_for(const DeviceContext& device) {
  return device.cuda != nullptr ? cuda_implementations<Op>() : implementations<Op>();
}

template <class Op>
const Implementation<Op>& select(const DeviceContext& device, const Op& op) {
  const auto table = implementations_for<Op>(device);
  for (const auto& candidate : table) {
    if (candidate.supports(device, op)) return candidate;
  }
  return table.back();
}

template <class Op>
void run(const DeviceContext& device, const Op& op) {
  select(device, op).run(device, op);
}

/// The layout that the best kernel of `device` for these shapes wants.
WeightLayout choose_layout(const DeviceContext& device, int64_t n, const ChannelLayout& layout,
                           int activation_bits);

/// What a float linear layer of k channels and f16, bf16 or f32 weights wants to read on `device`: f32, or
/// the type of its weights, to which its kernel would have to convert f32.
DType choose_input_type(const DeviceContext& device, DType weights, int64_t k);

/// Repacks canonical weights of the host for `device`, to the layout that choose_layout() names.
PreparedWeight prepare(const DeviceContext& device, const LowBitWeight& weight, int activation_bits);

/// As above, of canonical weights that are in the device's memory already.
PreparedWeight prepare(const DeviceContext& device, PreparedWeight canonical);

/// As above, to a layout that is given. For tests and benchmarks.
PreparedWeight prepare(const LowBitWeight& weight, int activation_bits, WeightLayout weight_layout);

template <>
std::span<const Implementation<EmbeddingLookup>> implementations();
template <>
std::span<const Implementation<RmsNorm>> implementations();
template <>
std::span<const Implementation<RmsNormQuantize>> implementations();
template <>
std::span<const Implementation<ReorderQuantize>> implementations();
template <>
std::span<const Implementation<SiluMul>> implementations();
template <>
std::span<const Implementation<SiluMulQuantize>> implementations();
template <>
std::span<const Implementation<LogSumExp>> implementations();
template <>
std::span<const Implementation<PickColumns>> implementations();
template <>
std::span<const Implementation<Sample>> implementations();
template <>
std::span<const Implementation<ChangeLogits>> implementations();
template <>
std::span<const Implementation<TopColumns>> implementations();
template <>
std::span<const Implementation<RandomFill>> implementations();
template <>
std::span<const Implementation<AddBias>> implementations();
template <>
std::span<const Implementation<HeadNorm>> implementations();
template <>
std::span<const Implementation<LinearFloat>> implementations();
template <>
std::span<const Implementation<LinearLowBit>> implementations();
template <>
std::span<const Implementation<LinearWeightOnly>> implementations();
template <>
std::span<const Implementation<RopeAppend>> implementations();
template <>
std::span<const Implementation<Attention>> implementations();
template <>
std::span<const Implementation<EmbeddingLookup>> cuda_implementations();
template <>
std::span<const Implementation<RmsNorm>> cuda_implementations();
template <>
std::span<const Implementation<RmsNormQuantize>> cuda_implementations();
template <>
std::span<const Implementation<ReorderQuantize>> cuda_implementations();
template <>
std::span<const Implementation<SiluMul>> cuda_implementations();
template <>
std::span<const Implementation<SiluMulQuantize>> cuda_implementations();
template <>
std::span<const Implementation<LogSumExp>> cuda_implementations();
template <>
std::span<const Implementation<PickColumns>> cuda_implementations();
template <>
std::span<const Implementation<Sample>> cuda_implementations();
template <>
std::span<const Implementation<ChangeLogits>> cuda_implementations();
template <>
std::span<const Implementation<TopColumns>> cuda_implementations();
template <>
std::span<const Implementation<RandomFill>> cuda_implementations();
template <>
std::span<const Implementation<AddBias>> cuda_implementations();
template <>
std::span<const Implementation<HeadNorm>> cuda_implementations();
template <>
std::span<const Implementation<LinearFloat>> cuda_implementations();
template <>
std::span<const Implementation<LinearLowBit>> cuda_implementations();
template <>
std::span<const Implementation<LinearWeightOnly>> cuda_implementations();
template <>
std::span<const Implementation<RopeAppend>> cuda_implementations();
template <>
std::span<const Implementation<Attention>> cuda_implementations();

}  // namespace atom
