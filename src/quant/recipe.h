#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/quantized.h"

namespace atom {

/// Everything that can be chosen about a quantization. `named` gives the recipes that have a name; each field
/// is then a switch of its own.
struct Recipe {
  /// `outliers` of a recipe whose channels are all outliers.
  static constexpr int64_t kAllChannels = INT64_MAX;

  std::string name = "atom";
  /// 4, 8 or 16: not quantized, weights alone are.
  int activation_bits = 4;
  /// Channels that share a scale; 0: one scale for all normal channels of a row or token.
  int64_t group_size = 128;
  /// Scales of a row or token that are integer multiples of one number (kernels/integer_scales.h), or any
  /// FP16, as in the baselines. Unset: integer where channels are in groups, activations are quantized and
  /// outliers are INT8.
  std::optional<bool> integer_scales;
  /// Outlier channels of every input. Unset: the number nearest to 128 that leaves whole groups (the smaller
  /// of two).
  std::optional<int64_t> outliers;
  int outlier_bits = 8;
  /// The largest magnitude of a group is scaled by these before it becomes the scale. Of integer scales that
  /// of weights is the row's, and each group has the best of the row's multiples.
  float activation_clip = 0.9f;
  float weight_clip = 0.85f;
  /// Search the clips on the calibration set, from 1 down to 0.5, instead of the two fixed ones.
  bool search_clips = false;
  bool gptq = true;
  /// Share of the mean diagonal of the Hessian that is added to it (GPTQ).
  float damping = 0.01f;
  /// Columns that GPTQ works on before it updates the rest.
  int64_t block_size = 128;
  int kv_cache_bits = 4;
  bool rotate_keys = false;
  int lm_head_bits = 16;

  /// "atom": the paper's recipe, W4A4KV4; "atom-w4a8": INT8 activations. Baselines, with FP16 scales, a
  /// 16-bit cache and without clipping: "rtn": round to nearest, one scale per token and row, no outliers;
  /// "w8a8": INT8, one scale per token and row; "w4a16": INT4 weights in groups of 128 by GPTQ, activations
  /// as they are. Throws UsageError for another name.
  static Recipe named(const std::string& name);
  static std::vector<std::string> names();

  /// Throws Error naming the setting that is out of range.
  void validate() const;

  /// `integer_scales`, or its default.
  bool has_integer_scales() const;

  /// Whether quantizing looks at activations at all (outliers, GPTQ, searched clips).
  bool needs_calibration() const;

  /// Outlier channels of an input of `k` channels, by `outliers` or the default rule. Throws Error when the
  /// group size does not divide the channels that are left, or when there are fewer than `outliers` channels.
  /// `input` is named in the error.
  int64_t outlier_count(int64_t k, const std::string& input) const;

  /// The layout of such an input. Throws Error where int32 could not hold the sums of integer scales.
  ChannelLayout layout(int64_t k, const std::string& input) const;
};

}  // namespace atom
