// LinearLowBit over canonical weights, any layout. x: quantized activations in either form, w: INT4 in the
// same groups plus INT8, FP8 or FP16 outliers, y [tokens, n] f32. A warp computes a row of w for kTokens
// tokens: lanes share the channels of a group, the exact sum comes by a warp reduction, then acc =
// fma(float(sum), sx * sw, acc), groups ascending, outliers last; float outliers: a lane a token, one chain
// of fma over ascending channels. With integer scales each lane adds up its channels' products times their
// multipliers, one reduction at the end; the row's unit comes from its scales, which the lanes share. The
// contract's order, hence the CPU's bits; made for layouts that no fast kernel takes, not for speed. Source:
// Atom, section 4.1 and 4.2; docs/numerics.md.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/row_unit.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/runtime.h"
#include "kernels/integer_scales.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 128;
constexpr int kTokens = 8;

struct Linear {
  LinearLowBitArgs args;
  ActivationBlocks blocks;
  int64_t outlier_offset;
  int64_t row_stride;
};

__global__ void __launch_bounds__(kThreads) linear_low_bit_kernel(const Linear a) {
  launch_dependents();
  wait_for_dependencies();
  const LowBitWeight& w = a.args.w;
  const QuantizedOutput& x = a.args.x;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t n = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  const int64_t first = int64_t{blockIdx.y} * kTokens;
  if (n >= w.n) return;
  const bool blocked = x.form == ActivationForm::blocks;
  const int64_t n_outlier = w.layout.n_outlier, k_normal = w.layout.k - n_outlier, groups = a.blocks.groups;
  // Tokens beyond the last repeat it; their results are dropped.
  const auto token = [&](int t) { return min(first + t, a.blocks.tokens - 1); };
  const auto value = [&](int t, int64_t block, int64_t start, int64_t channel) -> int {
    return x.values[blocked ? a.blocks.value(token(t), block + channel / 128, static_cast<int>(channel % 128))
                            : token(t) * a.row_stride + start + channel];
  };
  const uint8_t* values = w.values + n * ((k_normal + 1) / 2);
  const auto normal = [&](int64_t i) { return static_cast<int>(values[i / 2] >> (i % 2 * 4) & 15 ^ 8) - 8; };
  const int8_t* outliers = w.outliers + n * n_outlier;
  const auto outlier = [&](int64_t i) -> int { return outliers[i]; };
  const auto scale = [&](int t, int64_t group) { return x.scales[token(t) * (groups + 1) + group]; };

  if (w.layout.integer_scales) {
    const int64_t unit = row_unit_steps(w, n);
    int total[kTokens] = {};
    const auto add = [&](int64_t begin, int64_t end, int64_t group, uint16_t weight_scale, const auto& weight,
                         int64_t block, int64_t start) {
      const auto multiplier = static_cast<int>(integer_scales::multiplier_of(weight_scale, unit));
      for (int t = 0; t < kTokens; ++t) {
        int of_x = 1;
        if (!blocked) {
          of_x = static_cast<int>(scale(t, group));
        } else if (group == groups) {
          of_x = static_cast<int>(x.scales[a.blocks.outlier_multiplier(token(t))]);
        }
        int sum = 0;
        for (int64_t i = begin + lane; i < end; i += 32) sum += weight(i) * value(t, block, start, i);
        total[t] += sum * (of_x * multiplier);
      }
    };
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * w.layout.group;
      add(begin, min(begin + w.layout.group, k_normal), g, w.scales[n * groups + g], normal, 0, 0);
    }
    if (n_outlier > 0) {
      add(0, n_outlier, groups, w.outlier_scales[n], outlier, groups, a.outlier_offset);
    }
    for (int t = 0; t < kTokens; ++t) {
      const int sum = __reduce_add_sync(~0u, total[t]);
      if (lane != t || first + t >= a.blocks.tokens) continue;
      const float x_unit = blocked ? x.scales[a.blocks.unit(token(t))] : x.units[token(t)];
      const float product = static_cast<float>(sum) * (x_unit * integer_scales::from_steps(unit));
      float& y = static_cast<float*>(a.args.y.data)[(first + t) * a.args.y.stride + n];
      y = a.args.accumulate ? y + product : product;
    }
    return;
  }

  float acc[kTokens] = {};
  const auto add = [&](int64_t begin, int64_t end, int64_t group, float weight_scale, const auto& weight,
                       int64_t block, int64_t start) {
    int sum[kTokens] = {};
    for (int64_t i = begin + lane; i < end; i += 32) {
      const int q = weight(i);
      for (int t = 0; t < kTokens; ++t) sum[t] += q * value(t, block, start, i);
    }
    for (int t = 0; t < kTokens; ++t) {
      const int total = __reduce_add_sync(~0u, sum[t]);
      acc[t] = fmaf(static_cast<float>(total), scale(t, group) * weight_scale, acc[t]);
    }
  };
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * w.layout.group;
    add(begin, min(begin + w.layout.group, k_normal), g, half_to_float(w.scales[n * groups + g]), normal, 0,
        0);
  }
  if (n_outlier > 0 && w.layout.outlier_type == OutlierType::int8) {
    add(0, n_outlier, groups, half_to_float(w.outlier_scales[n]), outlier, groups, a.outlier_offset);
  }
  float own = 0.0f;
  for (int t = 0; t < kTokens; ++t) own = lane == t ? acc[t] : own;
  if (lane >= kTokens || first + lane >= a.blocks.tokens) return;
  if (w.layout.outlier_type == OutlierType::fp8) {
    const int8_t* from = x.values + (first + lane) * a.row_stride + a.outlier_offset;
    float sum = 0.0f;
    for (int64_t i = 0; i < n_outlier; ++i) {
      sum = fmaf(float8_to_float(static_cast<uint8_t>(from[i])),
                 float8_to_float(static_cast<uint8_t>(outliers[i])), sum);
    }
    own = fmaf(sum, scale(lane, groups) * half_to_float(w.outlier_scales[n]), own);
  } else if (w.layout.outlier_type == OutlierType::fp16) {
    const float* from = x.outliers_fp16 + (first + lane) * n_outlier;
    const uint16_t* weight = w.outliers_fp16 + n * n_outlier;
    for (int64_t i = 0; i < n_outlier; ++i) own = fmaf(from[i], half_to_float(weight[i]), own);
  }
  float& y = static_cast<float*>(a.args.y.data)[(first + lane) * a.args.y.stride + n];
  y = a.args.accumulate ? y + own : own;
}

}  // namespace

void linear_low_bit_general(const LinearLowBitArgs& args, cudaStream_t stream) {
  expect(args.y.dtype == DType::f32 && args.y.cols == args.w.n && args.x.spec.layout == args.w.layout,
         "linear_low_bit: shapes differ");
  check_output(args.x, args.w.layout.k);
  const Linear a{args,
                 {args.y.rows, args.w.layout.groups(), args.w.layout.n_outlier},
                 args.x.outlier_offset(),
                 args.x.row_stride()};
  if (args.y.rows == 0 || args.w.n == 0) return;
  launch(linear_low_bit_kernel, dim3(blocks_for(args.w.n, kThreads / 32), blocks_for(args.y.rows, kTokens)),
         kThreads, 0, stream, {}, a);
}

}  // namespace atom::cuda
