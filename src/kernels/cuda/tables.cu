#include "kernels/cuda.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/baseline/linear.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/fused/fused.h"
#include "kernels/cuda/fused/logit_ops.h"
#include "kernels/cuda/fused/pick_columns.h"
#include "kernels/cuda/fused/random_fill.h"
#include "kernels/cuda/fused/sample.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/linear_float/linear_float.h"
#include "kernels/cuda_bench.h"
#include "kernels/ops.h"

// The implementations of the ops on a GPU, in order of preference: what ops.h calls `views` become the
// kernels' arguments.

namespace atom {
namespace cuda {
namespace {

ConstMatrix matrix(MatrixView<const float> view) {
  return {view.data, DType::f32, view.rows, view.cols, view.stride};
}

MutableMatrix matrix(MatrixView<float> view) {
  return {view.data, DType::f32, view.rows, view.cols, view.stride};
}

MutableMatrix matrix(FloatOutput view) {
  return {view.data, view.dtype, view.rows, view.cols, view.stride};
}

QuantizedOutput output(QuantizedActivations& q) {
  return {q.spec(),   q.is_blocked() ? ActivationForm::blocks : ActivationForm::rows,
          q.values(), q.scales(),
          q.units(),  q.outliers_fp16()};
}

void run_embedding(const DeviceContext& device, const EmbeddingLookup& op) {
  const int64_t hidden = op.out.cols;
  // The table's number of rows is not needed: tokens have been checked.
  embedding({op.tokens.data(), {op.table, op.dtype, INT64_MAX / hidden, hidden, hidden}, matrix(op.out)},
            of(device).stream());
}

void run_rms_norm(const DeviceContext& device, const RmsNorm& op) {
  rms_norm({matrix(op.x), op.weight, op.eps, matrix(op.out)}, of(device).stream());
}

void run_rms_norm_quantize(const DeviceContext& device, const RmsNormQuantize& op) {
  rms_norm_quantize({matrix(op.x), op.weight, op.eps, op.permutation, output(*op.out)}, of(device).stream());
}

void run_reorder_quantize(const DeviceContext& device, const ReorderQuantize& op) {
  reorder_quantize({matrix(op.x), op.permutation, output(*op.out)}, of(device).stream());
}

void run_silu_mul(const DeviceContext& device, const SiluMul& op) {
  silu_mul({matrix(op.gate_up), matrix(op.out)}, of(device).stream());
}

void run_silu_mul_quantize(const DeviceContext& device, const SiluMulQuantize& op) {
  silu_mul_quantize({matrix(op.gate_up), output(*op.out)}, of(device).stream());
}

void run_add_bias(const DeviceContext& device, const AddBias& op) {
  add_bias({matrix(op.x), op.bias}, of(device).stream());
}

void run_head_norm(const DeviceContext& device, const HeadNorm& op) {
  head_norm({matrix(op.x), op.head_dim, op.weight, op.eps}, of(device).stream());
}

void run_log_sum_exp(const DeviceContext& device, const LogSumExp& op) {
  log_sum_exp({matrix(op.x), op.out.data()}, of(device).stream());
}

void run_pick_columns(const DeviceContext& device, const PickColumns& op) {
  pick_columns(op, of(device).stream());
}

void run_change_logits(const DeviceContext& device, const ChangeLogits& op) {
  change_logits(op, of(device).stream());
}

void run_top_columns(const DeviceContext& device, const TopColumns& op) {
  top_columns(op, of(device).stream());
}

void run_sample(const DeviceContext& device, const Sample& op) {
  sample(op, of(device).stream());
}

void run_random_fill(const DeviceContext& device, const RandomFill& op) {
  random_fill(op, of(device).stream());
}

void run_rope_append(const DeviceContext& device, const RopeAppend& op) {
  rope_append(
      {op.q.rows, op.q.cols / op.cache.head_dim, op.q.data, op.q.stride, op.k.data, op.k.stride, op.v.data,
       op.v.stride, op.positions.data(), op.slots.data(), op.cos, op.sin, op.rotate, op.cache},
      of(device).stream());
}

void run_linear_float_exact(const DeviceContext& device, const LinearFloat& op) {
  linear_float_exact(op, of(device).stream());
}

bool supports_cublas(const DeviceContext& device, const LinearFloat& op) {
  return !device.exact && op.dtype == DType::f32;
}

/// FP32 products in FP32.
void run_cublas(const DeviceContext& device, const LinearFloat& op) {
  const MatrixView<const float> x = op.x.floats();
  const float one = 1.0f;
  const float beta = op.accumulate ? 1.0f : 0.0f;
  const auto size = [](int64_t n) { return static_cast<int>(n); };
  ATOM_LIBRARY_CHECK(cublasSgemm(of(device).cublas(), CUBLAS_OP_T, CUBLAS_OP_N, size(op.y.cols), size(x.rows),
                                 size(x.cols), &one, static_cast<const float*>(op.w), size(x.cols), x.data,
                                 size(x.stride), &beta, op.y.data, size(op.y.stride)));
}

bool supports_tiles(const DeviceContext&, const LinearLowBit& op) {
  return op.w->weight_layout == WeightLayout::tiles_sm90 && op.x->is_blocked();
}

void gemm_w4a4(const DeviceContext& device, const LinearLowBit& op, DType output) {
  const ChannelLayout& layout = op.w->layout;
  GemmW4A4 gemm;
  gemm.weight = op.w->values.data();
  gemm.n = op.w->n;
  gemm.groups = layout.groups();
  gemm.n_outlier = layout.n_outlier;
  gemm.x = op.x->values();
  gemm.x_scales = op.x->scales();
  gemm.tokens = op.x->tokens();
  gemm.y = op.y.data;
  gemm.y_dtype = output;
  gemm.y_stride = op.y.stride;
  gemm.accumulate = op.accumulate;
  gemm_w4a4_sm90({of(device).stream(), of(device).sm_count()}, gemm);
}

void run_gemm_w4a4(const DeviceContext& device, const LinearLowBit& op) {
  gemm_w4a4(device, op, DType::f32);
}

void run_linear_low_bit_general(const DeviceContext& device, const LinearLowBit& op) {
  linear_low_bit_general(
      {output(*const_cast<QuantizedActivations*>(op.x)), op.w->view(), matrix(op.y), op.accumulate},
      of(device).stream());
}

AttentionArgs arguments(const Attention& op) {
  AttentionArgs args;
  args.q = op.q.data;
  args.q_stride = op.q.stride;
  args.out = op.out.data;
  args.out_stride = op.out.stride;
  args.sequences = op.sequences.data();
  args.n_sequences = static_cast<int64_t>(op.sequences.size());
  args.max_rows = op.max_rows;
  args.max_context = op.max_context;
  args.min_rows = op.min_rows;
  args.cache = op.cache;
  args.n_heads = op.n_heads;
  args.scale = op.scale;
  args.window = op.window;
  return args;
}

template <bool kExact>
void run_attention(const DeviceContext& device, const Attention& op) {
  Device& gpu = of(device);
  const AttentionArgs args = arguments(op);
  AttentionContext context;
  context.stream = gpu.stream();
  context.sm_count = gpu.sm_count();
  context.scratch_bytes = attention_scratch_bytes(args, gpu.sm_count(), kExact);
  context.scratch = gpu.scratch(context.scratch_bytes);
  context.parts = gpu.parts();
  context.exact = kExact;
  attention(context, args);
}

bool supports_fast(const DeviceContext& device, const Attention& op) {
  return !device.exact && supports_fast_attention(arguments(op));
}

constexpr Implementation<EmbeddingLookup> kEmbedding[] = {{"cuda", always, run_embedding}};
constexpr Implementation<RmsNorm> kRmsNorm[] = {{"cuda", always, run_rms_norm}};
constexpr Implementation<RmsNormQuantize> kRmsNormQuantize[] = {{"cuda", always, run_rms_norm_quantize}};
constexpr Implementation<ReorderQuantize> kReorderQuantize[] = {{"cuda", always, run_reorder_quantize}};
constexpr Implementation<SiluMul> kSiluMul[] = {{"cuda", always, run_silu_mul}};
constexpr Implementation<SiluMulQuantize> kSiluMulQuantize[] = {{"cuda", always, run_silu_mul_quantize}};
constexpr Implementation<AddBias> kAddBias[] = {{"cuda", always, run_add_bias}};
constexpr Implementation<HeadNorm> kHeadNorm[] = {{"cuda", always, run_head_norm}};
constexpr Implementation<LogSumExp> kLogSumExp[] = {{"cuda", always, run_log_sum_exp}};
constexpr Implementation<PickColumns> kPickColumns[] = {{"cuda", always, run_pick_columns}};
constexpr Implementation<ChangeLogits> kChangeLogits[] = {{"cuda", always, run_change_logits}};
constexpr Implementation<TopColumns> kTopColumns[] = {{"cuda", always, run_top_columns}};
constexpr Implementation<Sample> kSample[] = {{"cuda", always, run_sample}};
constexpr Implementation<RandomFill> kRandomFill[] = {{"cuda", always, run_random_fill}};
constexpr Implementation<RopeAppend> kRopeAppend[] = {{"cuda", always, run_rope_append}};
constexpr Implementation<LinearFloat> kLinearFloat[] = {
    {"cublas_lt", baseline::supports_float, baseline::linear_float},
    {"cublas", supports_cublas, run_cublas},
    {"cuda_exact", always, run_linear_float_exact},
};
constexpr Implementation<LinearLowBit> kLinearLowBit[] = {
    {"gemm_w4a4_sm90", supports_tiles, run_gemm_w4a4},
    {"cublas_lt", baseline::supports_dense8, baseline::linear_dense8},
    {"reference", always, run_linear_low_bit_general},
};
constexpr Implementation<LinearWeightOnly> kLinearWeightOnly[] = {
    {"w4a16_sm90", baseline::supports_w4a16, baseline::linear_w4a16},
    {"cuda_exact", always, baseline::linear_weight_only_exact},
};
constexpr Implementation<Attention> kAttention[] = {
    {"flash_sm90", supports_fast, run_attention<false>},
    {"cuda_exact", always, run_attention<true>},
};

}  // namespace
}  // namespace cuda

void cuda_linear_low_bit(const DeviceContext& device, const LinearLowBit& op, DType output) {
  cuda::gemm_w4a4(device, op, output);
}

PreparedWeight cuda_pack(const DeviceContext& device, PreparedWeight canonical, WeightLayout weight_layout) {
  switch (weight_layout) {
    case WeightLayout::dense8_sm90:
      return cuda::baseline::pack_dense8(device, canonical);
    case WeightLayout::w4a16_sm90:
      return cuda::baseline::pack_w4a16(device, canonical);
    case WeightLayout::tiles_sm90:
      break;
    default:
      return canonical;
  }
  PreparedWeight tiles;
  tiles.n = canonical.n;
  tiles.layout = canonical.layout;
  tiles.activation_bits = canonical.activation_bits;
  tiles.weight_layout = weight_layout;
  const cuda::WeightTiles shape{tiles.n, tiles.layout.groups(), tiles.layout.n_outlier};
  tiles.values = Buffer<uint8_t>(static_cast<size_t>(shape.bytes()), device.memory);
  cuda::pack_weight({canonical.view(), tiles.values.data()}, cuda::of(device).stream());
  return tiles;
}

template <>
std::span<const Implementation<EmbeddingLookup>> cuda_implementations() {
  return cuda::kEmbedding;
}

template <>
std::span<const Implementation<RmsNorm>> cuda_implementations() {
  return cuda::kRmsNorm;
}

template <>
std::span<const Implementation<RmsNormQuantize>> cuda_implementations() {
  return cuda::kRmsNormQuantize;
}

template <>
std::span<const Implementation<ReorderQuantize>> cuda_implementations() {
  return cuda::kReorderQuantize;
}

template <>
std::span<const Implementation<SiluMul>> cuda_implementations() {
  return cuda::kSiluMul;
}

template <>
std::span<const Implementation<SiluMulQuantize>> cuda_implementations() {
  return cuda::kSiluMulQuantize;
}

template <>
std::span<const Implementation<AddBias>> cuda_implementations() {
  return cuda::kAddBias;
}

template <>
std::span<const Implementation<HeadNorm>> cuda_implementations() {
  return cuda::kHeadNorm;
}

template <>
std::span<const Implementation<LogSumExp>> cuda_implementations() {
  return cuda::kLogSumExp;
}

template <>
std::span<const Implementation<PickColumns>> cuda_implementations() {
  return cuda::kPickColumns;
}

template <>
std::span<const Implementation<ChangeLogits>> cuda_implementations() {
  return cuda::kChangeLogits;
}

template <>
std::span<const Implementation<TopColumns>> cuda_implementations() {
  return cuda::kTopColumns;
}

template <>
std::span<const Implementation<Sample>> cuda_implementations() {
  return cuda::kSample;
}

template <>
std::span<const Implementation<RandomFill>> cuda_implementations() {
  return cuda::kRandomFill;
}

template <>
std::span<const Implementation<LinearFloat>> cuda_implementations() {
  return cuda::kLinearFloat;
}

template <>
std::span<const Implementation<LinearLowBit>> cuda_implementations() {
  return cuda::kLinearLowBit;
}

template <>
std::span<const Implementation<LinearWeightOnly>> cuda_implementations() {
  return cuda::kLinearWeightOnly;
}

template <>
std::span<const Implementation<RopeAppend>> cuda_implementations() {
  return cuda::kRopeAppend;
}

template <>
std::span<const Implementation<Attention>> cuda_implementations() {
  return cuda::kAttention;
}

}  // namespace atom
