// silu(gate) * up, plain and quantized. gate_up [tokens, stride] f32, f16 or bf16, gate in columns [0,
// inner), up in [inner, 2 * inner). Plain: four elements a thread. Quantized: to ActivationBlocks, a token
// by a cluster of blocks that exchange the largest scales through each other's shared memory; a warp takes
// units of 128 channels (row_quantize.cuh), four a lane. Bytes alone go to dense_quantize.cuh, anything else
// to the general kernel. x / (1 + exp(-x)) by the contract's exp and IEEE division: instructions are what
// limits this kernel, so both have a form without branches. Source: Atom, section 4.3.

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
  const float shifted = fmaf(-x, 1.44269504088896341f, kRound);
  const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3F800000u);
  const float divisor = 1.0f + numerics::exp_fraction(-x, shifted - kRound) * power;
  const float reciprocal = refined_reciprocal(divisor);
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

/// Each block of a token's cluster has the units rank * units_per_block, ..., which go round its warps, up to
/// kUnits of them a warp; silu * up stays in registers until the token's unit is known. Of all units' largest
/// magnitudes the first warp makes the factors, a lane each: divisions are few that way.
template <class In, int kUnits>
__global__ void __launch_bounds__(32 * max_silu_warps(kUnits), kUnits == 1 ? 2 : 1)
    silu_mul_quantize_kernel(const RowQuantize a, const SiluConfig config) {
  static_assert(kMaxSiluCluster <= ActivationBlocks::kSumParts);
  constexpr int kBlockUnits = kUnits * max_silu_warps(kUnits);
  /// Of the block's units: the largest magnitude, then the scale.
  __shared__ float scales[kBlockUnits];
  __shared__ UnitFactors factors[kBlockUnits];
  __shared__ TokenScale shares[kMaxSiluCluster];
  __shared__ uint64_t shared;
  launch_dependents();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = config.warps, cluster = 1 << config.cluster_bits;
  const int rank = static_cast<int>(blockIdx.x) & (cluster - 1);
  const int token = static_cast<int>(blockIdx.x) >> config.cluster_bits;
  if (cluster > 1) {
    if (threadIdx.x == 0) {
      ptx::barrier_init(&shared, 1);
      ptx::fence_barrier_init();
      ptx::barrier_arrive_expect(&shared, static_cast<uint32_t>(cluster * sizeof(TokenScale)));
    }
    __syncwarp();
    ptx::cluster_arrive();
  }
  const int groups = a.groups, begin = rank * config.units_per_block;
  const int units = min(config.units_per_block, a.units - begin);
  const In* gate = static_cast<const In*>(a.x) + token * a.stride;
  const In* up = gate + a.k;
  wait_for_dependencies();
  // Each block adds to its part of the token's sum; those of no block are 0, too.
  if (a.summed && threadIdx.x < ActivationBlocks::kSumParts) {
    const int part = static_cast<int>(threadIdx.x);
    if (part == rank || (rank == 0 && part >= cluster)) *sum_part(a, token, part) = 0;
  }

  Four g[kUnits], u[kUnits];
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = warp + j * warps;
    const Channels channels = channels_of(a, begin + unit, lane);
    const bool real = unit < units && channels.start < channels.end;
    g[j] = real ? load4(gate + channels.start) : Four{};
    u[j] = real ? load4(up + channels.start) : Four{};
  }
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    g[j] = silu_mul4(g[j], u[j]);
    const float largest = warp_max_magnitude(max_magnitude(g[j]));
    if (lane == 0 && warp + j * warps < units) scales[warp + j * warps] = largest;
  }
  __syncthreads();

  TokenScale asked{};
  if (warp == 0) {
    for (int unit = lane; unit < units; unit += 32) {
      const bool normal = begin + unit < groups;
      const float scale = scale_of(a, normal, scales[unit]);
      scales[unit] = scale;
      const TokenScale by_unit = asked_by(a, normal, scale);
      asked = {fmaxf(asked.unit, by_unit.unit), fmaxf(asked.outlier, by_unit.outlier)};
    }
    asked = warp_largest(asked);
    if (cluster > 1) {
      // Nothing is written to a block before it has begun, and none ends before all have written to it.
      ptx::cluster_wait();
      if (lane < cluster) {
        const auto mapped = [&](const void* p) {
          return ptx::map_shared(ptx::shared_address(p), static_cast<uint32_t>(lane));
        };
        ptx::store_cluster(mapped(&shares[rank]), make_float2(asked.unit, asked.outlier), mapped(&shared));
      }
      ptx::barrier_wait(&shared, 0);
      asked = warp_largest(lane < cluster ? shares[lane] : TokenScale{});
    }
    for (int unit = lane; unit < units; unit += 32) {
      factors[unit] = factors_of(a, begin + unit < groups, scales[unit], asked);
    }
  }
  __syncthreads();

  int8_t* to = place_of(a, token, begin, lane);
  int sum = 0;
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int unit = warp + j * warps;
    if (unit >= units) break;
    const bool normal = begin + unit < groups;
    const UnitFactors f = factors[unit];
    const uint32_t q =
        quantize4(g[j], f.inverse, f.multiplier, normal ? a.low : -127.0f, normal ? a.high : 127.0f);
    *reinterpret_cast<uint32_t*>(to + unit * block_bytes(a)) = q;
    if (normal) sum = add_bytes(q, sum);
  }
  if (a.summed) add_of_warp(sum_part(a, token, rank), sum);
  if (rank == 0 && threadIdx.x == 0) store_token_scale(a, token, asked);
}

template <class In>
void launch_silu(const RowQuantize& a, const SiluConfig& config, cudaStream_t stream) {
  const auto run = [&](auto kernel) {
    launch(kernel, dim3(static_cast<unsigned>(a.tokens << config.cluster_bits)), 32 * config.warps, 0, stream,
           {.cluster = 1 << config.cluster_bits}, a, config);
  };
  switch (config.units_per_warp) {
    case 1:
      return run(silu_mul_quantize_kernel<In, 1>);
    case 2:
      return run(silu_mul_quantize_kernel<In, 2>);
    default:
      return run(silu_mul_quantize_kernel<In, 4>);
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
    if (out.form == ActivationForm::blocks && aligned && is_fast_silu(layout)) {
      const RowQuantize a(x, nullptr, 0.0f, nullptr, out);
      return launch_silu<In>(a, silu_config(layout, x.rows, sm_count()), stream);
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
