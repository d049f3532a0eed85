#pragma once

// Quantization of any layout to either form, and what comes before it: a block a token, its row as float in
// shared memory. x [tokens, stride] (or gate and up, [tokens, 2 * k]) f32, f16 or bf16; any group, INT8, FP8
// or FP16 outliers, no alignment needed. A warp takes a group: largest magnitude by shuffles, then the
// values; the outliers come last. With integer scales, the token's unit comes first, from a pass over all
// groups. What the fast kernels (row_quantize.cuh, dense_quantize.cuh, silu.cu) don't
// take. Source: Atom, section 4.3; docs/numerics.md.

#include "kernels/cuda/fused/device.cuh"
#include "kernels/cuda/fused/fused.h"
#include "kernels/cuda/layout.h"
#include "kernels/integer_scales.h"

namespace atom::cuda::fused {

enum class Before { nothing, rms_norm, silu_mul };

struct GeneralQuantize {
  const void* x;
  int64_t stride;
  int64_t tokens;
  const float* weight;
  float eps;
  const int32_t* permutation;
  QuantizedOutput out;
};

inline constexpr int kGeneralThreads = 256;

/// Index functions of a token's row in either form.
struct OutputRow {
  const QuantizedOutput* out;
  ActivationBlocks blocks;
  int64_t token;

  __device__ bool in_blocks() const { return out->form == ActivationForm::blocks; }
  __device__ int64_t value(int64_t block, int64_t channel) const {
    return blocks.value(token, block + channel / 128, static_cast<int>(channel % 128));
  }
  __device__ void store_normal(int64_t channel, int8_t q) const {
    const int64_t at = in_blocks() ? value(0, channel) : token * row_stride() + channel;
    out->values[at] = q;
  }
  __device__ void store_outlier(int64_t channel, int8_t q) const {
    const int64_t at =
        in_blocks() ? value(blocks.groups, channel) : token * row_stride() + outlier_offset() + channel;
    out->values[at] = q;
  }
  /// Form `rows`: the scale of a group, of `groups` that of the outliers.
  __device__ void store_scale(int64_t group, float scale) const {
    if (!in_blocks()) out->scales[token * (blocks.groups + 1) + group] = scale;
  }
  __device__ void store_unit(float unit, float outlier_multiplier) const {
    if (!in_blocks()) {
      out->units[token] = unit;
      store_scale(blocks.groups, outlier_multiplier);
    } else {
      out->scales[blocks.unit(token)] = unit;
      out->scales[blocks.outlier_multiplier(token)] = outlier_multiplier;
    }
  }
  /// Of the sum's parts the first is used.
  __device__ bool has_sum() const { return in_blocks() && blocks.summed(); }
  __device__ void clear_sum() const {
    for (int i = 0; has_sum() && i < ActivationBlocks::kSumParts; ++i) *sum(i) = 0;
  }
  __device__ int* sum(int part) const {
    return reinterpret_cast<int*>(out->scales + blocks.sum(token, part));
  }
  /// Channels that the padded normal and outlier parts have.
  __device__ int64_t normal_end() const { return in_blocks() ? blocks.groups * 128 : outlier_offset(); }
  __device__ int64_t outlier_end() const {
    return in_blocks() ? blocks.outlier_blocks() * 128 : row_stride() - outlier_offset();
  }
  __device__ int64_t outlier_offset() const {
    return (out->spec.layout.k - out->spec.layout.n_outlier + 63) / 64 * 64;
  }
  __device__ int64_t row_stride() const {
    return outlier_offset() + (out->spec.layout.n_outlier + 63) / 64 * 64;
  }
};

template <class In, Before before>
__global__ void __launch_bounds__(kGeneralThreads)
    general_quantize_kernel(const GeneralQuantize a, int64_t groups) {
  extern __shared__ __align__(16) float row[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  constexpr int kWarps = kGeneralThreads / 32;
  const ActivationSpec& spec = a.out.spec;
  const int64_t k = spec.layout.k, n_outlier = spec.layout.n_outlier, k_normal = k - n_outlier;
  const int64_t token = blockIdx.x;
  const OutputRow out{&a.out, {a.tokens, groups, n_outlier}, token};
  launch_dependents();
  wait_for_dependencies();

  if (thread == 0) out.clear_sum();
  const In* x = static_cast<const In*>(a.x) + token * a.stride;
  for (int64_t i = thread; i < k; i += kGeneralThreads) {
    const float f = widen(x[i]);
    row[i] = before == Before::silu_mul ? numerics::silu(f) * widen(x[k + i]) : f;
  }
  __syncthreads();
  if constexpr (before == Before::rms_norm) {
    // Every warp walks the chains: simpler than handing the factor round, and as fast.
    const float factor = numerics::inverse_rms(sum_of_squares(row, static_cast<int>(k)), k, a.eps);
    __syncthreads();
    for (int64_t i = thread; i < k; i += kGeneralThreads) row[i] = (row[i] * factor) * a.weight[i];
    __syncthreads();
  }

  const auto channel = [&](int64_t i) { return row[a.permutation == nullptr ? i : a.permutation[i]]; };
  const auto largest = [&](int64_t begin, int64_t end) {
    float max_abs = 0.0f;
    for (int64_t i = begin + lane; i < end; i += 32) max_abs = numerics::max_magnitude(max_abs, channel(i));
    return warp_max(max_abs);
  };
  const float high = spec.bits == 4 ? 7.0f : 127.0f;
  const float low = spec.bits == 4 ? -8.0f : -127.0f;
  const OutlierType type = spec.layout.outlier_type;
  const bool integer = spec.layout.integer_scales;
  const auto scale_of = [&](int64_t g) {
    const int64_t begin = g * spec.layout.group;
    return numerics::symmetric_scale(largest(begin, min(begin + spec.layout.group, k_normal)), spec.clip,
                                     high);
  };
  float unit = 1.0f, inverse_unit = 1.0f, outlier_scale = 0.0f;
  if (integer || (type == OutlierType::int8 && n_outlier > 0 && warp == 0)) {
    outlier_scale = numerics::symmetric_scale(largest(k_normal, k), 1.0f, 127.0f);
  } else if (type == OutlierType::fp8) {
    outlier_scale = spec.scale;
  }
  const int most = integer_scales::most_of_activations(spec.bits);
  if (integer) {
    __shared__ float largest_of_warp[kWarps];
    float largest_scale = 0.0f;
    for (int64_t g = warp; g < groups; g += kWarps) largest_scale = fmaxf(largest_scale, scale_of(g));
    if (lane == 0) largest_of_warp[warp] = largest_scale;
    __syncthreads();
    for (const float other : largest_of_warp) largest_scale = fmaxf(largest_scale, other);
    unit = integer_scales::activation_unit(largest_scale, outlier_scale, most);
    inverse_unit = numerics::inverse_scale(unit);
    outlier_scale = integer_scales::outlier_multiplier(outlier_scale, inverse_unit,
                                                       integer_scales::kMostOfOutlierActivations);
    if (thread == 0) out.store_unit(unit, outlier_scale);
  } else if (thread == 0) {
    out.store_scale(groups, outlier_scale);
  }

  int sum = 0;
  for (int64_t g = warp; g < groups; g += kWarps) {
    const int64_t begin = g * spec.layout.group;
    const int64_t end = min(begin + spec.layout.group, k_normal);
    float scale = scale_of(g);
    if (integer) scale = integer_scales::group_multiplier(scale, inverse_unit, most);
    const float inverse = numerics::inverse_scale(scale * unit);
    const int multiplier = out.in_blocks() ? static_cast<int>(scale) : 1;
    for (int64_t i = begin + lane; i < end; i += 32) {
      const auto q = static_cast<int8_t>(numerics::quantize(channel(i), inverse, low, high) * multiplier);
      out.store_normal(i, q);
      sum += q;
    }
    if (lane == 0) out.store_scale(g, scale);
  }
  if (out.has_sum()) add_of_warp(out.sum(0), sum);
  for (int64_t i = k_normal + thread; i < out.normal_end(); i += kGeneralThreads) out.store_normal(i, 0);
  if (warp == 0) {
    const float inverse = numerics::inverse_scale(outlier_scale * unit);
    for (int64_t i = lane; i < out.outlier_end(); i += 32) {
      int q = 0;
      if (i < n_outlier && type == OutlierType::int8) {
        q = numerics::quantize(channel(k_normal + i), inverse, -127.0f, 127.0f);
      } else if (i < n_outlier && type == OutlierType::fp8) {
        q = numerics::quantize_float8(channel(k_normal + i), inverse);
      }
      out.store_outlier(i, static_cast<int8_t>(q));
    }
  } else if (type == OutlierType::fp16) {
    for (int64_t i = thread - 32; i < n_outlier; i += kGeneralThreads - 32) {
      a.out.outliers_fp16[token * n_outlier + i] = numerics::finite_half(channel(k_normal + i));
    }
  }
}

}  // namespace atom::cuda::fused
