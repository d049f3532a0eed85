#include "kernels/cpu/fused.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernels/cpu/fused_tokens.h"
#include "kernels/integer_scales.h"
#include "kernels/numerics.h"
#include "kernels/reference/sample.h"

namespace atom::cpu {
namespace {

constexpr int64_t kBlock = 2048;

/// Room for `count` floats: on the stack for usual sizes, because an allocation would show in a decode step.
template <int64_t kStack>
class Scratch {
 public:
  explicit Scratch(int64_t count) : heap_(count > kStack ? static_cast<size_t>(count) : 0) {}
  float* data() { return heap_.empty() ? stack_ : heap_.data(); }

 private:
  alignas(kAlignment) float stack_[kStack];
  Buffer<float> heap_;
};
using RowScratch = Scratch<8 * kBlock>;

/// Channels quantized at a time: whole groups.
int64_t block_of(const ChannelLayout& layout) {
  return std::max<int64_t>(1, kBlock / layout.group) * layout.group;
}

/// Channels that quantize_token() asks `channels` for at most.
int64_t scratch_of(const ChannelLayout& layout) {
  if (layout.integer_scales) return layout.k;
  return std::max(std::min(block_of(layout), layout.k_normal()), layout.n_outlier);
}

struct Range {
  float low;
  float high;
};
constexpr Range kInt8{-127.0f, 127.0f};

Range normal_range(int bits) {
  return bits == 4 ? Range{-8.0f, 7.0f} : kInt8;
}

/// Quantizes one token with integer scales: the unit takes all scales, so values come in a second pass. x [k]
/// in the layer's order.
void quantize_by_unit(const FusedRows& rows, const float* x, QuantizedActivations& out, int64_t token) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  const int64_t normal = layout.k_normal(), n_outlier = layout.n_outlier, groups = layout.groups();
  const Range range = normal_range(spec.bits);
  const int most = integer_scales::most_of_activations(spec.bits);
  float* scales = out.scales(token);
  int32_t* sums = out.sums(token);
  // What a layout without outliers has.
  scales[groups] = 1.0f;
  sums[groups] = 0;
  const float outlier =
      rows.group_scales(x + normal, n_outlier, n_outlier, 1.0f, kInt8.high, scales + groups);
  const float largest = rows.group_scales(x, normal, layout.group, spec.clip, range.high, scales);
  const float unit = integer_scales::activation_unit(largest, outlier, most);
  out.units()[token] = unit;
  rows.quantize_by_unit(x + normal, n_outlier, n_outlier, unit, integer_scales::kMostOfOutlierActivations,
                        true, kInt8.low, kInt8.high, out.values(token) + out.outlier_offset(),
                        scales + groups, sums + groups);
  rows.quantize_by_unit(x, normal, layout.group, unit, static_cast<float>(most), false, range.low, range.high,
                        out.values(token), scales, sums);
}

/// Quantizes one token. `channels(begin, n)` returns n channels from `begin` in the layer's order.
template <class Channels>
void quantize_token(const FusedRows& rows, const Channels& channels, QuantizedActivations& out,
                    int64_t token) {
  const ActivationSpec& spec = out.spec();
  const ChannelLayout& layout = spec.layout;
  if (layout.integer_scales) {
    quantize_by_unit(rows, channels(0, layout.k), out, token);
    return;
  }
  int8_t* values = out.values(token);
  float* scales = out.scales(token);
  int32_t* sums = out.sums(token);
  const Range range = normal_range(spec.bits);
  const int64_t block = block_of(layout);
  for (int64_t begin = 0; begin < layout.k_normal(); begin += block) {
    const int64_t n = std::min(block, layout.k_normal() - begin);
    const int64_t g = begin / layout.group;
    rows.quantize_groups(channels(begin, n), n, layout.group, spec.clip, range.low, range.high,
                         values + begin, scales + g, sums + g);
  }

  const int64_t groups = layout.groups();
  scales[groups] = 0.0f;
  sums[groups] = 0;
  if (layout.n_outlier == 0) return;
  const float* outliers = channels(layout.k_normal(), layout.n_outlier);
  if (layout.outlier_type == OutlierType::fp16) {
    rows.round_to_half(outliers, layout.n_outlier, out.outliers_fp16(token));
  } else {
    rows.quantize_groups(outliers, layout.n_outlier, layout.n_outlier, 1.0f, kInt8.low, kInt8.high,
                         values + out.outlier_offset(), scales + groups, sums + groups);
  }
}

void rms_norm_token(const FusedRows& rows, const float* x, const float* weight, int64_t n, float eps,
                    float* out) {
  const float factor = numerics::inverse_rms(rows.sum_of_squares(x, n), n, eps);
  rows.normalize(x, weight, factor, n, out);
}

}  // namespace

void embedding_lookup(const FusedRows& rows, const DeviceContext& device, const EmbeddingLookup& op) {
  const int64_t hidden = op.out.cols;
  const auto tokens = static_cast<int64_t>(op.tokens.size());
  assert(op.out.rows == tokens && is_float(op.dtype));
  for_each_token_range(device, tokens, hidden, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = op.tokens[static_cast<size_t>(t)] * hidden;
      if (op.dtype == DType::f32) {
        std::memcpy(op.out.row(t), static_cast<const float*>(op.table) + first,
                    static_cast<size_t>(hidden) * sizeof(float));
      } else {
        const auto widen = op.dtype == DType::f16 ? rows.widen_half : rows.widen_bfloat16;
        widen(static_cast<const uint16_t*>(op.table) + first, hidden, op.out.row(t));
      }
    }
  });
}

void rms_norm(const FusedRows& rows, const DeviceContext& device, const RmsNorm& op) {
  const MatrixView<float> out = op.out.floats();
  assert(out.rows == op.x.rows && out.cols == op.x.cols);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      rms_norm_token(rows, op.x.row(t), op.weight, op.x.cols, op.eps, out.row(t));
    }
  });
}

void rms_norm_quantize(const FusedRows& rows, const DeviceContext& device, const RmsNormQuantize& op) {
  const int64_t k = op.x.cols;
  assert(op.out->tokens() == op.x.rows && op.out->layout().k == k);
  for_each_token_range(device, op.x.rows, k, [&](int64_t begin, int64_t end) {
    RowScratch row(k);
    RowScratch block(scratch_of(op.out->layout()));
    const auto channels = [&](int64_t first, int64_t n) -> const float* {
      if (op.permutation == nullptr) return row.data() + first;
      rows.gather(row.data(), op.permutation + first, n, block.data());
      return block.data();
    };
    for (int64_t t = begin; t < end; ++t) {
      rms_norm_token(rows, op.x.row(t), op.weight, k, op.eps, row.data());
      quantize_token(rows, channels, *op.out, t);
    }
  });
}

void reorder_quantize(const FusedRows& rows, const DeviceContext& device, const ReorderQuantize& op) {
  assert(op.out->tokens() == op.x.rows && op.out->layout().k == op.x.cols);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    RowScratch block(scratch_of(op.out->layout()));
    for (int64_t t = begin; t < end; ++t) {
      const auto channels = [&](int64_t first, int64_t n) -> const float* {
        if (op.permutation == nullptr) return op.x.row(t) + first;
        rows.gather(op.x.row(t), op.permutation + first, n, block.data());
        return block.data();
      };
      quantize_token(rows, channels, *op.out, t);
    }
  });
}

void silu_mul(const FusedRows& rows, const DeviceContext& device, const SiluMul& op) {
  const MatrixView<float> out = op.out.floats();
  const int64_t inner = out.cols;
  assert(out.rows == op.gate_up.rows && op.gate_up.cols == 2 * inner);
  for_each_token_range(device, out.rows, inner, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = op.gate_up.row(t);
      rows.silu_mul(gate, gate + inner, inner, out.row(t));
    }
  });
}

void silu_mul_quantize(const FusedRows& rows, const DeviceContext& device, const SiluMulQuantize& op) {
  const int64_t inner = op.out->layout().k;
  assert(op.out->tokens() == op.gate_up.rows && op.gate_up.cols == 2 * inner);
  for_each_token_range(device, op.gate_up.rows, inner, [&](int64_t begin, int64_t end) {
    RowScratch block(scratch_of(op.out->layout()));
    for (int64_t t = begin; t < end; ++t) {
      const float* gate = op.gate_up.row(t);
      const auto channels = [&](int64_t first, int64_t n) -> const float* {
        rows.silu_mul(gate + first, gate + inner + first, n, block.data());
        return block.data();
      };
      quantize_token(rows, channels, *op.out, t);
    }
  });
}

void add_bias(const FusedRows& rows, const DeviceContext& device, const AddBias& op) {
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) rows.add(op.x.row(t), op.bias, op.x.cols);
  });
}

void head_norm(const FusedRows& rows, const DeviceContext& device, const HeadNorm& op) {
  assert(op.head_dim > 0 && op.x.cols % op.head_dim == 0);
  for_each_token_range(device, op.x.rows, op.x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (float* head = op.x.row(t); head < op.x.row(t) + op.x.cols; head += op.head_dim) {
        rms_norm_token(rows, head, op.weight, op.head_dim, op.eps, head);
      }
    }
  });
}

void log_sum_exp(const FusedRows& rows, const DeviceContext& device, const LogSumExp& op) {
  const int64_t n = op.x.cols;
  assert(static_cast<int64_t>(op.out.size()) == op.x.rows);
  for_each_token_range(device, op.x.rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float largest = rows.maximum(op.x.row(t), n);
      op.out[static_cast<size_t>(t)] =
          numerics::log_sum_exp(largest, rows.sum_of_exp(op.x.row(t), n, largest));
    }
  });
}

void sample(const FusedRows& rows, const DeviceContext& device, const Sample& op) {
  reference::sample(device, op, rows.relative_probabilities);
}

}  // namespace atom::cpu
