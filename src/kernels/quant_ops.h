#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

/// The operations that quantizing a model takes beside those of a decoder (kernels/ops.h), in the same form:
/// structs of views and tables of implementations. On a GPU the views and pointers are of its memory, but for
/// results that are said to lie in the host's.
///
/// Sums over tokens are rounded differently by different devices, so a CPU and a GPU choose slightly
/// different weights; each gives the same bits for the same input, whatever the number of threads.
namespace atom {

/// out[i] = x[first + i * step] for the rows of `out`. x [tokens, k], out [rows, k].
struct CopyRows {
  MatrixView<const float> x;
  int64_t first;
  int64_t step;
  MatrixView<float> out;
};

/// out[r, c] = w[r, columns[c]], as float; null `columns`: all in their own order. w [n, k] row-major in f32,
/// f16 or bf16, at any address on the host; out [n, k].
struct GatherColumns {
  DType dtype;
  const void* w;
  const int32_t* columns;
  MatrixView<float> out;
};

/// gram += x^T x on and above the diagonal; below it is unspecified. x [tokens, k]; gram [k, k], dense.
struct AddGram {
  MatrixView<const float> x;
  MatrixView<float> gram;
};

/// squares[c] += the sum of x[t, c]^2 over all t, in double. x [tokens, k].
struct AddSquares {
  MatrixView<const float> x;
  double* squares;
};

/// The upper Cholesky factor U of an inverse, H^-1 = U^T U, in double; the result is rounded to float.
/// H(i, j) = gram(permutation[i], permutation[j]), symmetric, where a diagonal element of 0 or less counts as
/// 1; `shift` is added to the diagonal. gram as AddGram leaves it; upper [k, k], dense, zero below the
/// diagonal. `positive_definite` [host]: whether there is such a factor; if not, `upper` is unspecified.
struct InverseFactor {
  MatrixView<const float> gram;
  const int32_t* permutation;
  double shift;
  MatrixView<float> upper;
  bool* positive_definite;
};

/// How scales of INT4 weights are chosen. INT8 outliers are never clipped.
///
/// FP16 scales: null `importance`: the group's largest magnitude times `clip`; otherwise that clip from 1
/// down to 0.5 whose squared error, weighted by `importance` [k] of the channels, is the least.
/// Integer scales: the row's unit by its largest magnitude times `clip`; of every group the multiplier whose
/// squared error is the least, weighted by `importance`. Null: by quant_scales::gptq_importance in GPTQ, all
/// alike elsewhere.
struct ScaleRule {
  float clip;
  const double* importance;
};

/// The arrays of a low-bit weight to be written, all zero; as LowBitWeight.
struct LowBitTarget {
  int64_t n = 0;
  ChannelLayout layout;
  uint8_t* values = nullptr;
  uint16_t* scales = nullptr;
  int8_t* outliers = nullptr;
  uint16_t* outlier_scales = nullptr;
  uint16_t* outliers_fp16 = nullptr;

  ATOM_HOST_DEVICE int64_t row_bytes() const { return (layout.k_normal() + 1) / 2; }
};

/// Every weight to the nearest value. weight [n, k], columns in the layout's order.
struct RoundWeight {
  MatrixView<const float> weight;
  ScaleRule rule;
  LowBitTarget out;
};

/// GPTQ (Frantar et al. 2022, arXiv 2210.17323; paper section 4.5): column by column, each column's error
/// carried into the columns still to come; the scale of a group is chosen when its first column's turn comes.
/// `upper` [k, k] is what InverseFactor gives. Errors reach columns beyond a block of `block_size` only at
/// the block's end; a GPU takes blocks of kLargestGpuGptqBlock at most. Leaves in `weight` the values as they
/// will be read back.
inline constexpr int64_t kLargestGpuGptqBlock = 128;
struct GptqWeight {
  MatrixView<float> weight;
  MatrixView<const float> upper;
  ScaleRule rule;
  int64_t block_size;
  LowBitTarget out;
};

/// loss [host] = |(x' - q) w^T|^2, what quantization of x loses in the outputs: x' is x [tokens, k] with its
/// columns in the order of `permutation`, q the values that `quantized` is read back as; weight [n, k] has
/// its columns in that order, too.
struct QuantizationLoss {
  MatrixView<const float> x;
  const int32_t* permutation;
  const QuantizedActivations* quantized;
  MatrixView<const float> weight;
  double* loss;
};

template <>
std::span<const Implementation<CopyRows>> implementations();
template <>
std::span<const Implementation<GatherColumns>> implementations();
template <>
std::span<const Implementation<AddGram>> implementations();
template <>
std::span<const Implementation<AddSquares>> implementations();
template <>
std::span<const Implementation<InverseFactor>> implementations();
template <>
std::span<const Implementation<RoundWeight>> implementations();
template <>
std::span<const Implementation<GptqWeight>> implementations();
template <>
std::span<const Implementation<QuantizationLoss>> implementations();
template <>
std::span<const Implementation<CopyRows>> cuda_implementations();
template <>
std::span<const Implementation<GatherColumns>> cuda_implementations();
template <>
std::span<const Implementation<AddGram>> cuda_implementations();
template <>
std::span<const Implementation<AddSquares>> cuda_implementations();
template <>
std::span<const Implementation<InverseFactor>> cuda_implementations();
template <>
std::span<const Implementation<RoundWeight>> cuda_implementations();
template <>
std::span<const Implementation<GptqWeight>> cuda_implementations();
template <>
std::span<const Implementation<QuantizationLoss>> cuda_implementations();

}  // namespace atom
