#include "quant/activation_sample.h"

#include <algorithm>

#include <cblas.h>

#include "kernels/ops.h"
#include "quant/parallel.h"

namespace atom {
namespace {

constexpr int kSteps = 10;
constexpr float kStep = 0.05f;
/// Rows that one thread takes at a time: fixed, so that sums do not depend on the number of threads.
constexpr int64_t kRowTile = 64;

/// What is lost of x (columns in the layout's order) by quantization: x - dequantized.
void subtract_dequantized(const QuantizedActivations& quantized, int64_t token, float* x) {
  const ChannelLayout& layout = quantized.layout();
  const int8_t* values = quantized.values(token);
  const float* scales = quantized.scales(token);
  for (int64_t c = 0; c < layout.k_normal(); ++c)
    x[c] -= static_cast<float>(values[c]) * scales[c / layout.group];
  for (int64_t c = 0; c < layout.n_outlier; ++c) {
    const float kept =
        layout.outlier_type == OutlierType::fp16
            ? quantized.outliers_fp16(token)[c]
            : static_cast<float>(values[quantized.outlier_offset() + c]) * scales[layout.groups()];
    x[layout.k_normal() + c] -= kept;
  }
}

}  // namespace

ActivationSample::ActivationSample(int64_t capacity, int64_t total_rows, int64_t k)
    : stride_(capacity == 0 ? 0 : std::max<int64_t>(1, (total_rows + capacity - 1) / capacity)),
      rows_(std::min(capacity, total_rows), k) {}

void ActivationSample::offer(MatrixView<const float> x) {
  if (stride_ == 0) return;
  for (int64_t r = 0; r < x.rows; ++r, ++seen_) {
    if (seen_ % stride_ != 0 || kept_ == rows_.rows()) continue;
    std::copy_n(x.row(r), x.cols, rows_.row(kept_++));
  }
}

float search_activation_clip(const DeviceContext& device, MatrixView<const float> sample,
                             MatrixView<const float> weight, const std::vector<int32_t>& permutation,
                             const ActivationSpec& spec) {
  const int64_t k = weight.cols;
  float best_clip = 1.0f;
  double best_error = 0;
  for (int step = 0; step <= kSteps; ++step) {
    ActivationSpec candidate = spec;
    candidate.clip = 1.0f - kStep * static_cast<float>(step);
    QuantizedActivations quantized;
    quantized.resize(sample.rows, candidate);
    run(device, ReorderQuantize{sample, permutation.data(), &quantized});
    const int64_t tiles = (sample.rows + kRowTile - 1) / kRowTile;
    std::vector<double> errors(static_cast<size_t>(tiles), 0.0);
    parallel_rows(
        device, tiles,
        [&](int64_t tile) {
          const int64_t first = tile * kRowTile;
          const int64_t rows = std::min(kRowTile, sample.rows - first);
          Matrix<float> lost(rows, k);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < k; ++c)
              lost(r, c) = sample(first + r, permutation[static_cast<size_t>(c)]);
            subtract_dequantized(quantized, first + r, lost.row(r));
          }
          Matrix<float> out(rows, weight.rows);
          cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows),
                      static_cast<int>(weight.rows), static_cast<int>(k), 1.0f, lost.data(),
                      static_cast<int>(k), weight.data, static_cast<int>(weight.stride), 0.0f, out.data(),
                      static_cast<int>(weight.rows));
          for (const float value : out.span())
            errors[static_cast<size_t>(tile)] += static_cast<double>(value) * value;
        },
        1);
    double error = 0;
    for (const double part : errors) error += part;
    if (step == 0 || error < best_error) {
      best_error = error;
      best_clip = candidate.clip;
    }
  }
  return best_clip;
}

}  // namespace atom
