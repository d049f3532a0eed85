#include "quant/gptq.h"

#include <cassert>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "kernels/quant_ops.h"

namespace atom {
namespace {

constexpr int kDampingAttempts = 4;

}  // namespace

GptqFactor::GptqFactor(const DeviceContext& device, const Hessian& hessian,
                       const std::vector<int32_t>& permutation, float damping, const std::string& name) {
  const auto k = static_cast<int64_t>(permutation.size());
  const std::vector<double> diagonal = hessian.diagonal(device);
  assert(!hessian.diagonal_only() && diagonal.size() == permutation.size());
  double mean = 0;
  for (const int32_t channel : permutation) {
    const double square = diagonal[static_cast<size_t>(channel)];
    mean += (square <= 0 ? 1.0 : square) / static_cast<double>(k);
  }
  require(std::isfinite(mean), "{}: the calibration set gives activations that are not finite", name);
  upper_ = Matrix<float>(k, k, device.memory);
  const auto order = Buffer<int32_t>::copy_of(permutation, device.memory);
  double share = static_cast<double>(damping);
  for (int attempt = 0; attempt < kDampingAttempts; ++attempt, share *= 10) {
    bool positive_definite = false;
    run(device,
        InverseFactor{hessian.upper(), order.data(), share * mean, upper_.view(), &positive_definite});
    if (positive_definite) return;
    spdlog::warn("{}: the Hessian is not positive definite with a damping of {}; raising it", name, share);
  }
  fail("{}: the Hessian is not positive definite; calibrate on more text or raise the damping", name);
}

LowBitStorage gptq(const DeviceContext& device, MatrixView<float> weight, const ChannelLayout& layout,
                   const GptqFactor& factor, const ScaleChooser& chooser, int64_t block_size) {
  LowBitStorage storage(weight.rows, layout, device.memory);
  run(device, GptqWeight{weight, factor.upper(), chooser.rule(), block_size, target_of(storage)});
  return to_host(std::move(storage));
}

}  // namespace atom
