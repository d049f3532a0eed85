#include <cassert>

#include "base/error.h"
#include "kernels/cuda.h"
#include "kernels/ops.h"
#include "kernels/quant_ops.h"

// The GPU backend of builds without CUDA: there is none. Left out of the others (CMakeLists.txt).

namespace atom {

std::optional<int> first_cuda_device() {
  return std::nullopt;
}

CudaHandle open_cuda(int) {
  throw UsageError("this build has no CUDA support (configure with -DATOM_CUDA=ON)");
}

void cuda_use_on_this_thread(const DeviceContext&) {}

void cuda_synchronize(const DeviceContext&) {}

CudaMemoryInfo cuda_memory_info(const DeviceContext&) {
  return {};
}

PreparedWeight cuda_pack(const DeviceContext&, PreparedWeight, WeightLayout) {
  assert(false);
  return {};
}

struct CudaGraphs::Impl {};
CudaGraphs::CudaGraphs() = default;
CudaGraphs::~CudaGraphs() = default;
void CudaGraphs::run(const DeviceContext&, std::vector<int64_t>, std::vector<int64_t>,
                     const std::function<void()>& work) {
  work();
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
std::span<const Implementation<RandomFill>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<Sample>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<ChangeLogits>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<TopColumns>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<PickColumns>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<AddBias>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<HeadNorm>> cuda_implementations() {
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
std::span<const Implementation<LinearWeightOnly>> cuda_implementations() {
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
template <>
std::span<const Implementation<CopyRows>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<GatherColumns>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<AddGram>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<AddSquares>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<InverseFactor>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<RoundWeight>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<GptqWeight>> cuda_implementations() {
  return {};
}
template <>
std::span<const Implementation<QuantizationLoss>> cuda_implementations() {
  return {};
}

}  // namespace atom
