#include "kernels/reference/fused.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "kernels/cpu/fused_tokens.h"
#include "kernels/integer_scales.h"
#include "kernels/numerics.h"
#include "kernels/random_value.h"
#include "tensor/half.h"

namespace atom::reference {
namespace {

/// Quantizes channels [begin, end) of a row in the layer's order to `values`; returns their sum.
/// `scale` is given because groups and outliers choose it differently.
template <class Channel>
int32_t quantize_range(const Channel& channel, int64_t begin, int64_t end, float scale, float low, float high,
                       int8_t* values) {
  const float inverse = numerics::inverse_scale(scale);
  int32_t sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t q = numerics::quantize(channel(i), inverse, low, high);
    values[i - begin] = static_cast<int8_t>(q);
    sum += q;
  }
  return sum;
}

template <class Channel>
float max_magnitude(const Channel& channel, int64_t begin, int64_t end) {
  float max_abs = 0.0f;
  for (int64_t i = begin; i < end; ++i) max_abs = numerics::max_magnitude(max_abs, channel(i));
  return max_abs;
}

/// With integer scales: first all groups' scales, which give the unit, then multipliers and values.
template <class Channel>
void quantize_by_unit(const Channel& channel, QuantizedActivations& out, int64_t token) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  float* scales = out.scales(token);
  int32_t* sums = out.sums(token);
  const float high = spec.bits == 4 ? 7.0f : 127.0f;
  const float low = spec.bits == 4 ? -8.0f : -127.0f;
  const int most = integer_scales::most_of_activations(spec.bits);
  const int64_t groups = layout.groups();
  const auto end_of = [&](int64_t g) { return std::min((g + 1) * layout.group, layout.k_normal()); };
  float largest = 0.0f;
  for (int64_t g = 0; g < groups; ++g) {
    scales[g] =
        numerics::symmetric_scale(max_magnitude(channel, g * layout.group, end_of(g)), spec.clip, high);
    largest = std::max(largest, scales[g]);
  }
  const float outlier =
      numerics::symmetric_scale(max_magnitude(channel, layout.k_normal(), layout.k), 1.0f, 127.0f);
  const float unit = integer_scales::activation_unit(largest, outlier, most);
  const float inverse = numerics::inverse_scale(unit);
  out.units()[token] = unit;
  for (int64_t g = 0; g < groups; ++g) {
    scales[g] = integer_scales::group_multiplier(scales[g], inverse, most);
    sums[g] = quantize_range(channel, g * layout.group, end_of(g), scales[g] * unit, low, high,
                             out.values(token) + g * layout.group);
  }
  scales[groups] =
      integer_scales::outlier_multiplier(outlier, inverse, integer_scales::kMostOfOutlierActivations);
  sums[groups] = quantize_range(channel, layout.k_normal(), layout.k, scales[groups] * unit, -127.0f, 127.0f,
                                out.values(token) + out.outlier_offset());
}

/// Reorders and quantizes one token: `row` [k] in the model's order, `permutation` [k] or null.
void quantize_token(const float* row, const int32_t* permutation, QuantizedActivations& out, int64_t token) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  const auto channel = [&](int64_t i) { return row[permutation == nullptr ? i : permutation[i]]; };
  int8_t* values = out.values(token);
  float* scales = out.scales(token);
  int32_t* sums = out.sums(token);

  const float high = spec.bits == 4 ? 7.0f : 127.0f;
  const float low = spec.bits == 4 ? -8.0f : -127.0f;
  const int64_t groups = layout.groups();
  if (layout.integer_scales) {
    quantize_by_unit(channel, out, token);
    return;
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * layout.group;
    const int64_t end = std::min(begin + layout.group, layout.k_normal());
    scales[g] = numerics::symmetric_scale(max_magnitude(channel, begin, end), spec.clip, high);
    sums[g] = quantize_range(channel, begin, end, scales[g], low, high, values + begin);
  }

  scales[groups] = 0.0f;
  sums[groups] = 0;
  if (layout.outlier_type == OutlierType::fp16) {
    float* outliers = out.outliers_fp16(token);
    for (int64_t i = 0; i < layout.n_outlier; ++i)
      outliers[i] = numerics::finite_half(channel(layout.k_normal() + i));
  } else if (layout.outlier_type == OutlierType::fp8) {
    scales[groups] = spec.scale;
    const float inverse = numerics::inverse_scale(spec.scale);
    for (int64_t i = 0; i < layout.n_outlier; ++i) {
      const uint8_t q = numerics::quantize_float8(channel(layout.k_normal() + i), inverse);
      values[out.outlier_offset() + i] = static_cast<int8_t>(q);
    }
  } else if (layout.n_outlier > 0) {
    const float max_abs = max_magnitude(channel, layout.k_normal(), layout.k);
    scales[groups] = numerics::symmetric_scale(max_abs, 1.0f, 127.0f);
    sums[groups] = quantize_range(channel, layout.k_normal(), layout.k, scales[groups], -127.0f, 127.0f,
                                  values + out.outlier_offset());
  }
}

void rms_norm_token(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const float factor = numerics::inverse_rms(numerics::sum_of_squares(x, n), n, eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] * factor) * weight[i];
}

void silu_mul_token(const float* gate_up, int64_t inner, float* out) {
  for (int64_t i = 0; i < inner; ++i) out[i] = numerics::silu(gate_up[i]) * gate_up[inner + i];
}

}  // namespace

void embedding_lookup(const DeviceContext& device, const EmbeddingLookup& op) {
  const int64_t hidden = op.out.cols;
  const auto tokens = static_cast<int64_t>(op.tokens.size());
  assert(op.out.rows == tokens && is_float(op.dtype));
  for_each_token_range(device, tokens, hidden, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* out = op.out.row(t);
      const int64_t first = op.tokens[static_cast<size_t>(t)] * hidden;
      if (op.dtype == DType::f32) {
        std::memcpy(out, static_cast<const float*>(op.table) + first,
                    static_cast<size_t>(hidden) * sizeof(float));
        continue;
      }
      const uint16_t* bits = static_cast<const uint16_t*>(op.table) + first;
      for (int64_t i = 0; i < hidden; ++i) {
        out[i] = op.dtype == DType::f16 ? half_to_float(bits[i]) : bfloat16_to_float(bits[i]);
      }
    }
  });
}

void rms_norm(const DeviceContext& device, const RmsNorm& op) {
  const MatrixView<float> out = op.out.floats();
  assert(out.rows == op.x.rows && out.cols == op.x.cols);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      rms_norm_token(op.x.row(t), op.weight, op.x.cols, op.eps, out.row(t));
  });
}

void rms_norm_quantize(const DeviceContext& device, const RmsNormQuantize& op) {
  assert(op.out->tokens() == op.x.rows && op.out->layout().k == op.x.cols);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    Buffer<float> row(static_cast<size_t>(op.x.cols));
    for (int64_t t = begin; t < end; ++t) {
      rms_norm_token(op.x.row(t), op.weight, op.x.cols, op.eps, row.data());
      quantize_token(row.data(), op.permutation, *op.out, t);
    }
  });
}

void reorder_quantize(const DeviceContext& device, const ReorderQuantize& op) {
  assert(op.out->tokens() == op.x.rows && op.out->layout().k == op.x.cols);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) quantize_token(op.x.row(t), op.permutation, *op.out, t);
  });
}

void silu_mul(const DeviceContext& device, const SiluMul& op) {
  const MatrixView<float> out = op.out.floats();
  assert(out.rows == op.gate_up.rows && op.gate_up.cols == 2 * out.cols);
  for_each_token_range(device, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) silu_mul_token(op.gate_up.row(t), out.cols, out.row(t));
  });
}

void silu_mul_quantize(const DeviceContext& device, const SiluMulQuantize& op) {
  const int64_t inner = op.out->layout().k;
  assert(op.out->tokens() == op.gate_up.rows && op.gate_up.cols == 2 * inner);
  for_each_token_range(device, op.gate_up.rows, inner, [&](int64_t begin, int64_t end) {
    Buffer<float> row(static_cast<size_t>(inner));
    for (int64_t t = begin; t < end; ++t) {
      silu_mul_token(op.gate_up.row(t), inner, row.data());
      quantize_token(row.data(), nullptr, *op.out, t);
    }
  });
}

void add_bias(const DeviceContext& device, const AddBias& op) {
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < op.x.cols; ++i) op.x(t, i) += op.bias[i];
    }
  });
}

void head_norm(const DeviceContext& device, const HeadNorm& op) {
  assert(op.head_dim > 0 && op.x.cols % op.head_dim == 0);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (float* head = op.x.row(t); head < op.x.row(t) + op.x.cols; head += op.head_dim) {
        rms_norm_token(head, op.weight, op.head_dim, op.eps, head);
      }
    }
  });
}

void log_sum_exp(const DeviceContext& device, const LogSumExp& op) {
  const int64_t n = op.x.cols;
  assert(static_cast<int64_t>(op.out.size()) == op.x.rows);
  for_each_token_range(device, op.x.rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float largest = numerics::maximum(op.x.row(t), n);
      op.out[static_cast<size_t>(t)] =
          numerics::log_sum_exp(largest, numerics::sum_of_exp(op.x.row(t), n, largest));
    }
  });
}

void random_fill(const DeviceContext& device, const RandomFill& op) {
  for_each_token_range(device, op.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) put_random_value(op, i);
  });
}

void pick_columns(const DeviceContext&, const PickColumns& op) {
  for (size_t t = 0; t < op.columns.size(); ++t) op.out[t] = op.x(static_cast<int64_t>(t), op.columns[t]);
}

}  // namespace atom::reference
