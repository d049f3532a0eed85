#include "quant/activation_sample.h"

#include <algorithm>

#include "kernels/quant_ops.h"

namespace atom {
namespace {

constexpr int kSteps = 10;
constexpr float kStep = 0.05f;

}  // namespace

ActivationSample::ActivationSample(const DeviceContext& device, int64_t capacity, int64_t total_rows,
                                   int64_t k)
    : stride_(capacity == 0 ? 0 : std::max<int64_t>(1, (total_rows + capacity - 1) / capacity)),
      rows_(std::min(capacity, total_rows), k, device.memory) {}

void ActivationSample::offer(const DeviceContext& device, MatrixView<const float> x) {
  if (stride_ == 0) return;
  // The rows whose number is a multiple of the stride.
  const int64_t first = (stride_ - seen_ % stride_) % stride_;
  seen_ += x.rows;
  if (first >= x.rows) return;
  const int64_t count = std::min((x.rows - first + stride_ - 1) / stride_, rows_.rows() - kept_);
  if (count == 0) return;
  run(device, CopyRows{x, first, stride_, rows_.view().row_range(kept_, kept_ + count)});
  kept_ += count;
}

float search_activation_clip(const DeviceContext& device, MatrixView<const float> sample,
                             MatrixView<const float> weight, const int32_t* permutation,
                             const ActivationSpec& spec) {
  float best_clip = 1.0f;
  double best_loss = 0;
  QuantizedActivations quantized(device.memory);
  for (int step = 0; step <= kSteps; ++step) {
    ActivationSpec candidate = spec;
    candidate.clip = 1.0f - kStep * static_cast<float>(step);
    quantized.resize(sample.rows, candidate);
    run(device, ReorderQuantize{sample, permutation, &quantized});
    double loss = 0;
    run(device, QuantizationLoss{sample, permutation, &quantized, weight, &loss});
    if (step == 0 || loss < best_loss) {
      best_loss = loss;
      best_clip = candidate.clip;
    }
  }
  return best_clip;
}

}  // namespace atom
