// silu(gate) * up, plain and quantized. gate_up [tokens, stride] f32, f16 or bf16, gate in columns [0,
// inner), up in [inner, 2 * inner). Plain: four elements a thread. Quantized: to ActivationBlocks, a warp
// handles kUnits units of 128 channels of a token, four a lane, all loads first; the scale by shuffles, 128
// consecutive bytes of a block written at once. The outliers are one unit; more than 128 are computed twice.
// Bytes alone go to dense_quantize.cuh, anything else to the general kernel. x / (1 + exp(-x)) by the
// contract's exp and IEEE division. Source: Atom, section 4.3.

#include "kernels/cuda/fused/config.h"
#include "kernels/cuda/fused/dense_quantize.cuh"
#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/general_quantize.cuh"
#include "kernels/cuda/fused/row_quantize.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 256;

__device__ Four silu_mul4(const Four& gate, const Four& up) {
  Four y;
  for (int i = 0; i < 4; ++i) y.v[i] = numerics::silu(gate.v[i]) * up.v[i];
  return y;
}

struct Plain {
  const void* gate_up;
  int64_t stride;
  int64_t tokens;
  int64_t inner;
  void* out;
  int64_t out_stride;
};

template <class In, class Out, bool kVector>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(const Plain a) {
  launch_dependents();
  wait_for_dependencies();
  const int64_t token = blockIdx.x;
  const In* gate = static_cast<const In*>(a.gate_up) + token * a.stride;
  const In* up = gate + a.inner;
  Out* out = static_cast<Out*>(a.out) + token * a.out_stride;
  const int64_t first = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.y} * kThreads;
  if constexpr (kVector) {
    for (int64_t i = 4 * first; i < a.inner; i += 4 * step)
      store4(out + i, silu_mul4(load4(gate + i), load4(up + i)));
  } else {
    for (int64_t i = first; i < a.inner; i += step) {
      out[i] = narrow<Out>(numerics::silu(widen(gate[i])) * widen(up[i]));
    }
  }
}

template <class In, int kUnits>
__global__ void __launch_bounds__(kThreads) silu_mul_quantize_kernel(const RowQuantize a) {
  launch_dependents();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int groups = static_cast<int>(a.blocks.groups);
  const int64_t token = blockIdx.x;
  const In* gate = static_cast<const In*>(a.x) + token * a.stride;
  const In* up = gate + a.k;
  const int first = (static_cast<int>(blockIdx.y) * (kThreads / 32) + warp) * kUnits;
  const auto start_of = [&](int unit) { return (unit < groups ? unit * 128 : a.k_normal) + 4 * lane; };
  wait_for_dependencies();

  Four g[kUnits], u[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = first + j, start = start_of(unit);
    const bool real = unit <= groups && start < (unit < groups ? a.k_normal : a.k);
    g[j] = real ? load4(gate + start) : Four{};
    u[j] = real ? load4(up + start) : Four{};
  }
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = first + j;
    if (unit > groups) break;
    const Four y = silu_mul4(g[j], u[j]);
    if (unit < groups) {
      const float scale = numerics::symmetric_scale(warp_max_magnitude(max_magnitude(y)), a.clip, a.high);
      store_block(a, token, unit, lane, quantize4(y, numerics::inverse_scale(scale), a.low, a.high));
      if (lane == 0) a.scales[a.blocks.scale(token, unit)] = scale;
      continue;
    }
    const auto block = [&](int b) {
      const int start = a.k_normal + 128 * b + 4 * lane;
      if (b == 0) return y;
      return start < a.k ? silu_mul4(load4(gate + start), load4(up + start)) : Four{};
    };
    const int blocks = static_cast<int>(a.blocks.outlier_blocks());
    float largest = max_magnitude(y);
    for (int b = 1; b < blocks; ++b) largest = fmaxf(largest, max_magnitude(block(b)));
    const float scale = numerics::symmetric_scale(warp_max_magnitude(largest), 1.0f, 127.0f);
    const float inverse = numerics::inverse_scale(scale);
    for (int b = 0; b < blocks; ++b) {
      store_block(a, token, groups + b, lane, quantize4(block(b), inverse, -127.0f, 127.0f));
    }
    if (lane == 0) a.scales[a.blocks.scale(token, groups)] = scale;
  }
}

}  // namespace

void silu_mul(const SiluMulArgs& args, cudaStream_t stream) {
  const int64_t inner = args.out.cols;
  expect(args.gate_up.cols == 2 * inner && args.gate_up.rows == args.out.rows, "silu_mul: shapes differ");
  if (args.out.rows == 0) return;
  const Plain a{args.gate_up.data, args.gate_up.stride, args.out.rows, inner, args.out.data, args.out.stride};
  const bool vector = inner % 4 == 0 &&
                      is_aligned(args.gate_up.data, args.gate_up.stride, args.gate_up.dtype) &&
                      is_aligned(args.out.data, args.out.stride, args.out.dtype);
  const dim3 grid(static_cast<unsigned>(args.out.rows), blocks_for(inner, kThreads * (vector ? 4 : 1)));
  with_types(args.gate_up.dtype, args.out.dtype, [&](auto in, auto out) {
    using In = typename decltype(in)::type;
    using Out = typename decltype(out)::type;
    launch(vector ? silu_mul_kernel<In, Out, true> : silu_mul_kernel<In, Out, false>, grid, kThreads, 0,
           stream, {}, a);
  });
}

void silu_mul_quantize(const SiluMulQuantizeArgs& args, cudaStream_t stream) {
  const ConstMatrix& x = args.gate_up;
  const QuantizedOutput& out = args.out;
  const ChannelLayout& layout = out.spec.layout;
  check_output(out, x.cols / 2);
  if (x.rows == 0) return;
  const bool aligned = is_aligned(x.data, x.stride, x.dtype) && is_aligned(out.values, 0, DType::i8);
  with_type(x.dtype, [&](auto type) {
    using In = typename decltype(type)::type;
    if (out.form == ActivationForm::blocks && aligned && is_four_aligned(layout)) {
      const bool four = out.spec.bits == 4;
      const RowQuantize a{x.data,
                          x.stride,
                          nullptr,
                          0.0f,
                          nullptr,
                          {x.rows, layout.groups(), layout.n_outlier},
                          static_cast<int>(layout.k),
                          static_cast<int>(layout.k_normal()),
                          out.spec.clip,
                          four ? -8.0f : -127.0f,
                          four ? 7.0f : 127.0f,
                          1,
                          out.values,
                          out.scales};
      // The unit of the outliers always exists: it writes their scale, 0 when there are none.
      const int units = static_cast<int>(layout.groups()) + 1;
      const int per_warp = x.rows <= 64 ? 1 : 2;
      const dim3 grid(static_cast<unsigned>(x.rows), blocks_for(units, kThreads / 32 * per_warp));
      return launch(per_warp == 1 ? silu_mul_quantize_kernel<In, 1> : silu_mul_quantize_kernel<In, 2>, grid,
                    kThreads, 0, stream, {}, a);
    }
    if (takes_dense(x, nullptr, nullptr, out)) {
      return dense_quantize<In, Before::silu_mul>(x, nullptr, 0.0f, out, stream);
    }
    const GeneralQuantize a{x.data, x.stride, x.rows, nullptr, 0.0f, nullptr, out};
    launch(general_quantize_kernel<In, Before::silu_mul>, dim3(static_cast<unsigned>(x.rows)),
           kGeneralThreads, static_cast<size_t>(layout.k) * sizeof(float), stream, {}, a, layout.groups());
  });
}

}  // namespace atom::cuda
