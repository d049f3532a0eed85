#pragma once

#include <cassert>
#include <cstdint>

#include "kernels/cuda/layout.h"
#include "tensor/tensor.h"

namespace atom {

/// What the outlier channels are: INT8 is the paper's, FP16 is kept for the ablation. FP8 (E4M3) is a
/// baseline, of layers whose channels are all outliers.
enum class OutlierType : uint8_t { int8, fp16, fp8 };

/// How the input channels of a linear layer are divided. K channels, already in the order in which the layer
/// wants them: first the normal ones in groups of `group`, then the outliers (paper section 4.1 and 4.2).
struct ChannelLayout {
  int64_t k = 0;
  int64_t n_outlier = 0;
  /// Channels that share a scale; the last group may be shorter. Equal to k_normal() for one scale a row.
  int64_t group = 128;
  OutlierType outlier_type = OutlierType::int8;
  /// Scales of a row and of a token are integer multiples of one number (kernels/integer_scales.h): INT8
  /// outliers only.
  bool integer_scales = false;

  ATOM_HOST_DEVICE int64_t k_normal() const { return k - n_outlier; }
  ATOM_HOST_DEVICE int64_t groups() const { return k_normal() == 0 ? 0 : (k_normal() + group - 1) / group; }
  bool operator==(const ChannelLayout&) const = default;
};

/// Whether every channel is a byte (W8A8, FP8), in rows that cuBLASLt multiplies as they are.
inline bool is_dense8(const ChannelLayout& layout) {
  return layout.k_normal() == 0 && layout.outlier_type != OutlierType::fp16 && layout.k % 16 == 0;
}

/// Whether the blocked layouts of kernels/cuda/layout.h hold it: integer scales, whole groups of 128.
inline bool fits_blocks(const ChannelLayout& layout) {
  return layout.integer_scales && layout.group == 128 && layout.k_normal() > 0 &&
         layout.k_normal() % 128 == 0;
}

/// How the input of a linear layer is quantized at run time.
struct ActivationSpec {
  ChannelLayout layout;
  /// 4 or 8: bits of the normal channels. 16: activations are not quantized, weights alone are (W4A16).
  int bits = 4;
  /// The largest magnitude of a group is scaled by this before it becomes the scale; 1 = no clipping.
  /// Outliers are never clipped.
  float clip = 1.0f;
  /// FP8 outliers alone: the one scale of all tokens, chosen beforehand, a value of fp16.
  float scale = 1.0f;
};

/// Quantized activations of `tokens` tokens: what the fused quantizing ops write and the low-bit linear ops
/// read.
///
/// values  [tokens, stride] int8: normal channels at [0, k_normal), zeros up to outlier_offset, INT8 (or FP8)
///         outliers at [outlier_offset, outlier_offset + n_outlier), zeros up to stride. Offset and stride
///         are multiples of 64.
/// scales  [tokens, groups + 1] float, each a value of fp16: one a group, then the outliers' one. With
///         integer scales: multipliers of the token's unit.
/// units   [tokens] float, with integer scales only.
/// sums    [tokens, groups + 1] int32: the sum of the quantized values of each group, then of the outliers (0
///         for FP8). Kernels that store weights with an offset subtract offset * sum.
/// outliers_fp16 [tokens, n_outlier] float, each a value of fp16: only for OutlierType::fp16 (values then
/// hold
///         zeros in the outliers' place, the last scale is 0).
///
/// On a GPU, where the layout allows (is_blocked()), values and scales are those of kernels/cuda/layout.h
/// instead, the tokens' sums among the scales.
class QuantizedActivations {
 public:
  /// Null `memory`: the host's; otherwise a GPU's.
  explicit QuantizedActivations(Memory* memory = nullptr) : memory_(memory) {}

  /// Makes room for `tokens` tokens of `spec`; memory only grows. Padding is zero afterwards; the rest is
  /// unspecified.
  void resize(int64_t tokens, const ActivationSpec& spec);

  bool is_blocked() const { return memory_ != nullptr && fits_blocks(spec_.layout); }
  cuda::ActivationBlocks blocks() const { return {tokens_, spec_.layout.groups(), spec_.layout.n_outlier}; }

  int64_t tokens() const { return tokens_; }
  const ActivationSpec& spec() const { return spec_; }
  const ChannelLayout& layout() const { return spec_.layout; }
  int64_t outlier_offset() const { return outlier_offset_; }
  int64_t stride() const { return stride_; }
  int64_t scale_stride() const { return spec_.layout.groups() + 1; }

  /// All values and scales, for ops that know the layout.
  int8_t* values() { return values_.data(); }
  const int8_t* values() const { return values_.data(); }
  float* scales() { return scales_.data(); }
  const float* scales() const { return scales_.data(); }
  float* units() { return units_.data(); }
  const float* units() const { return units_.data(); }
  float* outliers_fp16() { return outliers_fp16_.data(); }
  const float* outliers_fp16() const { return outliers_fp16_.data(); }

  int8_t* values(int64_t token) { return values_.data() + token * stride_; }
  const int8_t* values(int64_t token) const { return values_.data() + token * stride_; }
  float* scales(int64_t token) { return scales_.data() + token * scale_stride(); }
  const float* scales(int64_t token) const { return scales_.data() + token * scale_stride(); }
  /// What scales(token) are multiples of.
  float unit(int64_t token) const {
    return layout().integer_scales ? units_[static_cast<size_t>(token)] : 1.0f;
  }
  int32_t* sums(int64_t token) { return sums_.data() + token * scale_stride(); }
  const int32_t* sums(int64_t token) const { return sums_.data() + token * scale_stride(); }
  float* outliers_fp16(int64_t token) { return outliers_fp16_.data() + token * spec_.layout.n_outlier; }
  const float* outliers_fp16(int64_t token) const {
    return outliers_fp16_.data() + token * spec_.layout.n_outlier;
  }

 private:
  Memory* memory_ = nullptr;
  ActivationSpec spec_;
  int64_t tokens_ = 0;
  int64_t outlier_offset_ = 0;
  int64_t stride_ = 0;
  Buffer<int8_t> values_;
  Buffer<float> scales_;
  Buffer<float> units_;
  Buffer<int32_t> sums_;
  Buffer<float> outliers_fp16_;
};

/// A low-bit weight matrix in the canonical layout of the packed checkpoint; K in the layout's order. Not
/// owned.
///
/// values         [n, ceil(k_normal / 2)] bytes: INT4 two's complement, the even channel in the low nibble.
/// scales         [n, groups] fp16 bits.
///                With integer scales: every scale of a row, the outliers' included, is a multiple of one
///                number as integer_scales::are_integer() says.
/// outliers       [n, n_outlier] int8 with outlier_scales [n] fp16 bits (FP8: its bits, all scales equal), or
/// outliers_fp16  [n, n_outlier] fp16 bits.
struct LowBitWeight {
  int64_t n = 0;
  ChannelLayout layout;
  const uint8_t* values = nullptr;
  const uint16_t* scales = nullptr;
  const int8_t* outliers = nullptr;
  const uint16_t* outlier_scales = nullptr;
  const uint16_t* outliers_fp16 = nullptr;

  int64_t row_bytes() const { return (layout.k_normal() + 1) / 2; }
  /// Elements of the arrays; those of the other type of outliers are empty.
  int64_t value_count() const { return n * row_bytes(); }
  int64_t scale_count() const { return n * layout.groups(); }
  int64_t outlier_count() const { return has_bytes() ? n * layout.n_outlier : 0; }
  int64_t outlier_scale_count() const { return has_bytes() && layout.n_outlier > 0 ? n : 0; }
  int64_t outlier_fp16_count() const { return has_bytes() ? 0 : n * layout.n_outlier; }
  int64_t bytes() const {
    return value_count() + outlier_count() +
           2 * (scale_count() + outlier_scale_count() + outlier_fp16_count());
  }
  bool has_bytes() const { return layout.outlier_type != OutlierType::fp16; }
};

/// Layouts a low-bit weight may be repacked to when a model is loaded. A GPU's keep all of it in `values`:
/// tiles_sm90 as kernels/cuda/layout.h says, dense8_sm90 (is_dense8() layers) [n up to a multiple of 16, k]
/// bytes, then as many float scales (zeros beyond n), w4a16_sm90 as kernels/cuda/baseline/w4a16/config.h
/// says.
enum class WeightLayout : uint8_t {
  canonical,
  rows8_avx2,
  rows16_avx512,
  tiles_sm90,
  dense8_sm90,
  w4a16_sm90
};

/// A low-bit weight owned in the layout its kernel wants, in the device's memory. Made by `prepare` in
/// kernels/ops.h.
struct PreparedWeight {
  int64_t n = 0;
  ChannelLayout layout;
  /// Bits of the activations it will meet (ActivationSpec::bits): they decide which kernel is chosen.
  int activation_bits = 4;
  WeightLayout weight_layout = WeightLayout::canonical;
  Buffer<uint8_t> values;
  /// With integer scales, in layouts but the canonical one: scales and outlier_scales are multipliers, as
  /// fp16, of `units`, one a row.
  Buffer<uint16_t> scales;
  Buffer<int8_t> outliers;
  Buffer<uint16_t> outlier_scales;
  Buffer<uint16_t> outliers_fp16;
  Buffer<float> units;

  /// Of a weight in the canonical layout.
  LowBitWeight view() const {
    assert(weight_layout == WeightLayout::canonical);
    return {n,
            layout,
            values.data(),
            scales.data(),
            outliers.data(),
            outlier_scales.data(),
            outliers_fp16.data()};
  }
};

}  // namespace atom
