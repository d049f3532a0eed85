#include <algorithm>
#include <vector>

#include <cblas.h>

#include "kernels/cpu/quant/parallel.h"
#include "kernels/cpu/quant/quant.h"

namespace atom::cpu {
namespace {

/// Rows that one thread takes at a time: fixed, so that sums do not depend on the number of threads.
constexpr int64_t kRowTile = 64;

/// What is lost of x (columns in the layout's order) by quantization: x - dequantized.
void subtract_dequantized(const QuantizedActivations& quantized, int64_t token, float* x) {
  const ChannelLayout& layout = quantized.layout();
  const int8_t* values = quantized.values(token);
  const auto scale = [scales = quantized.scales(token), unit = quantized.unit(token)](int64_t group) {
    return scales[group] * unit;
  };
  for (int64_t c = 0; c < layout.k_normal(); ++c) {
    x[c] -= static_cast<float>(values[c]) * scale(c / layout.group);
  }
  for (int64_t c = 0; c < layout.n_outlier; ++c) {
    const float kept =
        layout.outlier_type == OutlierType::fp16
            ? quantized.outliers_fp16(token)[c]
            : static_cast<float>(values[quantized.outlier_offset() + c]) * scale(layout.groups());
    x[layout.k_normal() + c] -= kept;
  }
}

}  // namespace

void quantization_loss(const DeviceContext& device, const QuantizationLoss& op) {
  const int64_t k = op.weight.cols;
  const int64_t tiles = (op.x.rows + kRowTile - 1) / kRowTile;
  std::vector<double> losses(static_cast<size_t>(tiles), 0.0);
  parallel_rows(
      device, tiles,
      [&](int64_t tile) {
        const int64_t first = tile * kRowTile;
        const int64_t rows = std::min(kRowTile, op.x.rows - first);
        Matrix<float> lost(rows, k);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < k; ++c) lost(r, c) = op.x(first + r, op.permutation[c]);
          subtract_dequantized(*op.quantized, first + r, lost.row(r));
        }
        Matrix<float> out(rows, op.weight.rows);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows),
                    static_cast<int>(op.weight.rows), static_cast<int>(k), 1.0f, lost.data(),
                    static_cast<int>(k), op.weight.data, static_cast<int>(op.weight.stride), 0.0f, out.data(),
                    static_cast<int>(op.weight.rows));
        for (const float value : out.span())
          losses[static_cast<size_t>(tile)] += static_cast<double>(value) * value;
      },
      1);
  *op.loss = 0;
  for (const double part : losses) *op.loss += part;
}

}  // namespace atom::cpu
