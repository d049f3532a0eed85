// silu(gate) * up, plain and quantized. gate_up [tokens, stride] f32, f16 or bf16, gate in columns [0,
// inner), up in [inner, 2 * inner). Plain: four elements a thread. Quantized: to ActivationBlocks, a warp
// handles kUnits units of 128 channels of a token, four a lane, all loads first, then as row_quantize.cuh
// does it. The outliers are one unit; more than 128 are computed twice. Bytes alone go to dense_quantize.cuh,
// anything else to the general kernel. x / (1 + exp(-x)) by the contract's exp and IEEE division:
// instructions are what limits this kernel, so both have a form without branches.
// Source: Atom, section 4.3.

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

/// Whether `plain_silu` is right: exp(-x) neither overflows nor underflows, and the quotient is no subnormal
/// number but where it is exactly x / 2.
__device__ bool is_plain(float x) {
  return fabsf(x - 30.0f) <= 57.0f;
}

/// numerics::silu of a plain x to the bit, without branches: the integer n of exp is taken from the bits of
/// the sum that rounds it, and the quotient is the classic one, from a reciprocal refined once and corrected
/// by its exact remainder, as IEEE division does it away from the ends of the range (Markstein 1990,
/// "Computation of elementary functions on the IBM RISC System/6000 processor", section 4). The signs are
/// such that -0 stays -0.
__device__ float plain_silu(float x) {
  const float shifted = fmaf(-x, 1.44269504088896341f, 12582912.0f);
  const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3F800000u);
  const float divisor = 1.0f + numerics::exp_fraction(-x, shifted - 12582912.0f) * power;
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(divisor));
  reciprocal = fmaf(fmaf(-divisor, reciprocal, 1.0f), reciprocal, reciprocal);
  const float quotient = x * reciprocal;
  return fmaf(-fmaf(divisor, quotient, -x), reciprocal, quotient);
}

__device__ __noinline__ float any_silu(float x) {
  return numerics::silu(x);
}

__device__ Four silu_mul4(const Four& gate, const Four& up) {
  Four y;
  if (is_plain(gate.v[0]) && is_plain(gate.v[1]) && is_plain(gate.v[2]) && is_plain(gate.v[3])) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y.v[i] = plain_silu(gate.v[i]) * up.v[i];
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) y.v[i] = any_silu(gate.v[i]) * up.v[i];
  }
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
  const int groups = static_cast<int>(a.blocks.groups), units = unit_count(a);
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
    const bool real = unit < units && start < (unit < groups ? a.k_normal : a.k);
    g[j] = real ? load4(gate + start) : Four{};
    u[j] = real ? load4(up + start) : Four{};
  }
#pragma unroll
  for (int j = 0; j < kUnits; ++j) g[j] = silu_mul4(g[j], u[j]);
  // Outliers beyond the first 128.
  const auto more_outliers = [&](int b) {
    const int start = a.k_normal + 128 * b + 4 * lane;
    return start < a.k ? silu_mul4(load4(gate + start), load4(up + start)) : Four{};
  };
  quantize_units<true>(a, token, first, 1, g, more_outliers);
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
      const ActivationBlocks blocks{x.rows, layout.groups(), layout.n_outlier};
      const RowQuantize a{x.data,
                          x.stride,
                          nullptr,
                          0.0f,
                          nullptr,
                          blocks,
                          blocks.stride(),
                          static_cast<int>(layout.k),
                          static_cast<int>(layout.k_normal()),
                          out.spec.clip,
                          four ? -8.0f : -127.0f,
                          four ? 7.0f : 127.0f,
                          out.values,
                          out.scales};
      // Few tokens: a unit a warp, for the shortest time. Many: four, for more loads in flight.
      const auto run = [&](auto kernel, int per_warp) {
        const dim3 grid(static_cast<unsigned>(x.rows),
                        blocks_for(std::max<int64_t>(row_units(layout), 1), kThreads / 32 * per_warp));
        launch(kernel, grid, kThreads, 0, stream, {}, a);
      };
      if (x.rows <= 64) return run(silu_mul_quantize_kernel<In, 1>, 1);
      if (x.rows <= 512) return run(silu_mul_quantize_kernel<In, 2>, 2);
      return run(silu_mul_quantize_kernel<In, 4>, 4);
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
