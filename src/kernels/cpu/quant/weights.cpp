#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include <cblas.h>

#include "base/error.h"
#include "kernels/cpu/quant/parallel.h"
#include "kernels/cpu/quant/quant.h"
#include "kernels/cpu/quant/row_quantizer.h"
#include "kernels/quant_scales.h"
#include "tensor/half.h"

// Weights on their way from a checkpoint to their low-bit form.

namespace atom::cpu {
namespace {

/// Rows that one call of the matrix product takes: fixed, so that results do not depend on the number of
/// threads.
constexpr int64_t kRowTile = 64;

/// out[c] = the element columns[c] of a row of T at `row`, which need not be aligned.
template <class T, class Convert>
void gather_row(const std::byte* row, const int32_t* columns, float* out, int64_t count,
                const Convert& convert) {
  for (int64_t c = 0; c < count; ++c) {
    T value;
    std::memcpy(&value, row + static_cast<size_t>(columns == nullptr ? c : columns[c]) * sizeof(T),
                sizeof(T));
    out[c] = convert(value);
  }
}

}  // namespace

void copy_rows(const DeviceContext&, const CopyRows& op) {
  for (int64_t i = 0; i < op.out.rows; ++i) {
    std::copy_n(op.x.row(op.first + i * op.step), op.out.cols, op.out.row(i));
  }
}

void gather_columns(const DeviceContext& device, const GatherColumns& op) {
  require(is_float(op.dtype), "expected a float tensor, found {}", name_of(op.dtype));
  const auto* bytes = static_cast<const std::byte*>(op.w);
  const size_t row_bytes = static_cast<size_t>(op.out.cols) * size_of(op.dtype);
  parallel_rows(device, op.out.rows, [&](int64_t r) {
    const std::byte* row = bytes + static_cast<size_t>(r) * row_bytes;
    float* out = op.out.row(r);
    if (op.dtype == DType::f32) {
      gather_row<float>(row, op.columns, out, op.out.cols, [](float value) { return value; });
    } else if (op.dtype == DType::f16) {
      gather_row<uint16_t>(row, op.columns, out, op.out.cols, half_to_float);
    } else {
      gather_row<uint16_t>(row, op.columns, out, op.out.cols, bfloat16_to_float);
    }
  });
}

void round_weight(const DeviceContext& device, const RoundWeight& op) {
  parallel_rows(device, op.weight.rows, [&](int64_t row) {
    RowQuantizer quantizer(op.out, row, op.rule);
    const std::span<const float> values(op.weight.row(row), static_cast<size_t>(op.weight.cols));
    for (int64_t column = 0; column < op.weight.cols; ++column) quantizer.quantize(values, column);
  });
}

void gptq_weight(const DeviceContext& device, const GptqWeight& op) {
  const MatrixView<float> weight = op.weight;
  const MatrixView<const float> upper = op.upper;
  const int64_t k = weight.cols;
  assert(op.out.layout.k == k && upper.rows == k);
  ScaleRule rule = op.rule;
  std::vector<double> importance;
  if (op.out.layout.integer_scales && rule.importance == nullptr) {
    for (int64_t c = 0; c < k; ++c) importance.push_back(quant_scales::gptq_importance(upper(c, c)));
    rule.importance = importance.data();
  }
  const int64_t tiles = (weight.rows + kRowTile - 1) / kRowTile;
  // Rows do not depend on each other: each tile of rows goes through all the columns.
  parallel_rows(
      device, tiles,
      [&](int64_t tile) {
        const int64_t first = tile * kRowTile;
        const int64_t rows = std::min(kRowTile, weight.rows - first);
        std::vector<RowQuantizer> quantizers;
        for (int64_t r = 0; r < rows; ++r) quantizers.emplace_back(op.out, first + r, rule);
        Matrix<float> errors(rows, std::min(op.block_size, k));
        for (int64_t begin = 0; begin < k; begin += op.block_size) {
          const int64_t end = std::min(begin + op.block_size, k);
          for (int64_t r = 0; r < rows; ++r) {
            float* row = weight.row(first + r);
            for (int64_t c = begin; c < end; ++c) {
              const float before = row[c];
              const float after =
                  quantizers[static_cast<size_t>(r)].quantize({row, static_cast<size_t>(k)}, c);
              const float error = (before - after) / upper(c, c);
              errors(r, c - begin) = error;
              row[c] = after;
              const float* factors = upper.row(c);
              for (int64_t j = c + 1; j < end; ++j) row[j] -= error * factors[j];
            }
          }
          if (end == k) break;
          cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(rows),
                      static_cast<int>(k - end), static_cast<int>(end - begin), -1.0f, errors.data(),
                      static_cast<int>(errors.cols()), upper.row(begin) + end, static_cast<int>(upper.stride),
                      1.0f, weight.row(first) + end, static_cast<int>(weight.stride));
        }
      },
      1);
}

}  // namespace atom::cpu
