#include "kernels/cpu/quant/quant.h"

// The CPU's implementations of the ops of quantization: one each.

namespace atom {
namespace {

template <class Op, void (*function)(const DeviceContext&, const Op&)>
constexpr Implementation<Op> kTable[] = {{"cpu", always<Op>, function}};

}  // namespace

template <>
std::span<const Implementation<CopyRows>> implementations() {
  return kTable<CopyRows, cpu::copy_rows>;
}
template <>
std::span<const Implementation<GatherColumns>> implementations() {
  return kTable<GatherColumns, cpu::gather_columns>;
}
template <>
std::span<const Implementation<AddGram>> implementations() {
  return kTable<AddGram, cpu::add_gram>;
}
template <>
std::span<const Implementation<AddSquares>> implementations() {
  return kTable<AddSquares, cpu::add_squares>;
}
template <>
std::span<const Implementation<InverseFactor>> implementations() {
  return kTable<InverseFactor, cpu::inverse_factor>;
}
template <>
std::span<const Implementation<RoundWeight>> implementations() {
  return kTable<RoundWeight, cpu::round_weight>;
}
template <>
std::span<const Implementation<GptqWeight>> implementations() {
  return kTable<GptqWeight, cpu::gptq_weight>;
}
template <>
std::span<const Implementation<QuantizationLoss>> implementations() {
  return kTable<QuantizationLoss, cpu::quantization_loss>;
}

}  // namespace atom
