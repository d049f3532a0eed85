#include "kernels/cuda/quant/quant.h"

// A GPU's implementations of the ops of quantization: one each.

namespace atom {
namespace {

template <class Op, void (*function)(const DeviceContext&, const Op&)>
constexpr Implementation<Op> kTable[] = {{"cuda", always<Op>, function}};

}  // namespace

template <>
std::span<const Implementation<CopyRows>> cuda_implementations() {
  return kTable<CopyRows, cuda::quant::copy_rows>;
}
template <>
std::span<const Implementation<GatherColumns>> cuda_implementations() {
  return kTable<GatherColumns, cuda::quant::gather_columns>;
}
template <>
std::span<const Implementation<AddGram>> cuda_implementations() {
  return kTable<AddGram, cuda::quant::add_gram>;
}
template <>
std::span<const Implementation<AddSquares>> cuda_implementations() {
  return kTable<AddSquares, cuda::quant::add_squares>;
}
template <>
std::span<const Implementation<InverseFactor>> cuda_implementations() {
  return kTable<InverseFactor, cuda::quant::inverse_factor>;
}
template <>
std::span<const Implementation<RoundWeight>> cuda_implementations() {
  return kTable<RoundWeight, cuda::quant::round_weight>;
}
template <>
std::span<const Implementation<GptqWeight>> cuda_implementations() {
  return kTable<GptqWeight, cuda::quant::gptq_weight>;
}
template <>
std::span<const Implementation<QuantizationLoss>> cuda_implementations() {
  return kTable<QuantizationLoss, cuda::quant::quantization_loss>;
}

}  // namespace atom
