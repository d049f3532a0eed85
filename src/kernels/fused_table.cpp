#include "kernels/cpu/fused.h"
#include "kernels/cpu/rope.h"
#include "kernels/ops.h"
#include "kernels/reference/fused.h"
#include "kernels/reference/logits.h"
#include "kernels/reference/rope.h"
#include "kernels/reference/sample.h"

// The implementations of the fused ops, in order of preference.
namespace atom {
namespace {

/// FP8 is left to the reference.
template <CpuIsa isa, class Op>
bool supports_rows(const DeviceContext& device, const Op& op) {
  if constexpr (requires { op.out->layout(); }) {
    if (op.out->layout().outlier_type == OutlierType::fp8) return false;
  }
  return device.isa >= isa;
}

#if defined(__x86_64__)
template <class Op>
using RowsFunction = void (*)(const cpu::FusedRows&, const DeviceContext&, const Op&);

template <class Op, RowsFunction<Op> function, const cpu::FusedRows& (*rows)()>
void run_rows(const DeviceContext& device, const Op& op) {
  function(rows(), device, op);
}

template <CpuIsa isa, const cpu::RopeRows& (*rows)()>
bool supports_rope(const DeviceContext& device, const RopeAppend& op) {
  return device.isa >= isa && cpu::supports_rope_append(rows(), op);
}

template <const cpu::RopeRows& (*rows)()>
void run_rope(const DeviceContext& device, const RopeAppend& op) {
  cpu::rope_append(rows(), device, op);
}
#endif

void reference_sample(const DeviceContext& device, const Sample& op) {
  reference::sample(device, op);
}

/// AVX-512, then AVX2, then the reference.
template <class Op, auto vector_function, auto reference_function>
constexpr Implementation<Op> kRowTable[] = {
#if defined(__x86_64__)
    {"avx512", supports_rows<CpuIsa::avx512, Op>, run_rows<Op, vector_function, cpu::fused_rows_avx512>},
    {"avx2", supports_rows<CpuIsa::avx2, Op>, run_rows<Op, vector_function, cpu::fused_rows_avx2>},
#endif
    {"reference", always<Op>, reference_function},
};

}  // namespace

template <>
std::span<const Implementation<EmbeddingLookup>> implementations() {
  return kRowTable<EmbeddingLookup, cpu::embedding_lookup, reference::embedding_lookup>;
}

template <>
std::span<const Implementation<RmsNorm>> implementations() {
  return kRowTable<RmsNorm, cpu::rms_norm, reference::rms_norm>;
}

template <>
std::span<const Implementation<RmsNormQuantize>> implementations() {
  return kRowTable<RmsNormQuantize, cpu::rms_norm_quantize, reference::rms_norm_quantize>;
}

template <>
std::span<const Implementation<ReorderQuantize>> implementations() {
  return kRowTable<ReorderQuantize, cpu::reorder_quantize, reference::reorder_quantize>;
}

template <>
std::span<const Implementation<SiluMul>> implementations() {
  return kRowTable<SiluMul, cpu::silu_mul, reference::silu_mul>;
}

template <>
std::span<const Implementation<SiluMulQuantize>> implementations() {
  return kRowTable<SiluMulQuantize, cpu::silu_mul_quantize, reference::silu_mul_quantize>;
}

template <>
std::span<const Implementation<AddBias>> implementations() {
  return kRowTable<AddBias, cpu::add_bias, reference::add_bias>;
}

template <>
std::span<const Implementation<HeadNorm>> implementations() {
  return kRowTable<HeadNorm, cpu::head_norm, reference::head_norm>;
}

template <>
std::span<const Implementation<LogSumExp>> implementations() {
  return kRowTable<LogSumExp, cpu::log_sum_exp, reference::log_sum_exp>;
}

template <>
std::span<const Implementation<PickColumns>> implementations() {
  static constexpr Implementation<PickColumns> kTable[] = {{"reference", always, reference::pick_columns}};
  return kTable;
}

template <>
std::span<const Implementation<Sample>> implementations() {
  return kRowTable<Sample, cpu::sample, reference_sample>;
}

template <>
std::span<const Implementation<ChangeLogits>> implementations() {
  static constexpr Implementation<ChangeLogits> kTable[] = {{"reference", always, reference::change_logits}};
  return kTable;
}

template <>
std::span<const Implementation<TopColumns>> implementations() {
  static constexpr Implementation<TopColumns> kTable[] = {{"reference", always, reference::top_columns}};
  return kTable;
}

template <>
std::span<const Implementation<RandomFill>> implementations() {
  static constexpr Implementation<RandomFill> kTable[] = {{"reference", always, reference::random_fill}};
  return kTable;
}

template <>
std::span<const Implementation<RopeAppend>> implementations() {
  static constexpr Implementation<RopeAppend> kTable[] = {
#if defined(__x86_64__)
    {"avx512", supports_rope<CpuIsa::avx512, cpu::rope_rows_avx512>, run_rope<cpu::rope_rows_avx512>},
    {"avx2", supports_rope<CpuIsa::avx2, cpu::rope_rows_avx2>, run_rope<cpu::rope_rows_avx2>},
#endif
    {"reference", always, reference::rope_append},
  };
  return kTable;
}

}  // namespace atom
