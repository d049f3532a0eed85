#include "kernels/cpu/linear/linear.h"
#include "kernels/ops.h"
#include "kernels/reference/linear.h"

// The implementations of the linear ops in order of preference.

namespace atom {
namespace {

constexpr Implementation<LinearFloat> kLinearFloat[] = {
    {"openblas", cpu::linear_float_openblas_supports, cpu::linear_float_openblas},
#if defined(__x86_64__)
    {"avx512", cpu::linear_float_avx512_supports, cpu::linear_float_avx512},
    {"avx2", cpu::linear_float_avx2_supports, cpu::linear_float_avx2},
#endif
    {"reference", always<LinearFloat>, reference::linear_float},
};

constexpr Implementation<LinearLowBit> kLinearLowBit[] = {
#if defined(__x86_64__)
    {"avx512vnni", cpu::linear_low_bit_avx512vnni_supports, cpu::linear_low_bit_avx512vnni},
    {"avx512", cpu::linear_low_bit_avx512_supports, cpu::linear_low_bit_avx512},
    {"avx2", cpu::linear_low_bit_avx2_supports, cpu::linear_low_bit_avx2},
#endif
    {"reference", always<LinearLowBit>, reference::linear_low_bit},
};

constexpr Implementation<LinearWeightOnly> kLinearWeightOnly[] = {
    {"dequantize", cpu::linear_weight_only_supports, cpu::linear_weight_only},
    {"reference", always<LinearWeightOnly>, reference::linear_weight_only},
};

}  // namespace

template <>
std::span<const Implementation<LinearFloat>> implementations() {
  return kLinearFloat;
}

template <>
std::span<const Implementation<LinearLowBit>> implementations() {
  return kLinearLowBit;
}

template <>
std::span<const Implementation<LinearWeightOnly>> implementations() {
  return kLinearWeightOnly;
}

}  // namespace atom
