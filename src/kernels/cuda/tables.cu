#include "kernels/cuda.h"
#include "kernels/ops.h"

// The implementations of the ops on a GPU, in order of preference.

namespace atom {

PreparedWeight cuda_prepare(const DeviceContext&, const LowBitWeight&, int, WeightLayout) {
  return {};
}

template <>
std::span<const Implementation<EmbeddingLookup>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<RmsNorm>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<RmsNormQuantize>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<ReorderQuantize>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<SiluMul>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<SiluMulQuantize>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<LogSumExp>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<PickColumns>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<LinearFloat>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<LinearLowBit>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<RopeAppend>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<Attention>> cuda_implementations() {
  return {};
}

}  // namespace atom
