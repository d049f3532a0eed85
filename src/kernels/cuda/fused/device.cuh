#pragma once

#include <cstdint>

#include "kernels/numerics.h"

/// What the fused kernels share on the device: loads and stores of four elements of a float
/// type, and reductions whose order does not matter.
namespace atom::cuda::fused {

/// Element types: f16 and bf16 as their bits.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

__device__ inline float widen(float x) {
  return x;
}
__device__ inline float widen(Half x) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
  return f;
}
__device__ inline float widen(BFloat16 x) {
  return bfloat16_to_float(x.bits);
}

template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline Half narrow<Half>(float x) {
  Half h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
}
template <>
__device__ inline BFloat16 narrow<BFloat16>(float x) {
  return {float_to_bfloat16(x)};
}

struct Four {
  float v[4];
};

/// Four consecutive elements; `p` is aligned to four.
__device__ inline Four load4(const float* p) {
  const float4 f = *reinterpret_cast<const float4*>(p);
  return {{f.x, f.y, f.z, f.w}};
}
template <class T>
__device__ inline Four load4(const T* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  const auto low = [](uint32_t w) { return T{static_cast<uint16_t>(w & 0xFFFFu)}; };
  const auto high = [](uint32_t w) { return T{static_cast<uint16_t>(w >> 16)}; };
  return {{widen(low(bits.x)), widen(high(bits.x)), widen(low(bits.y)), widen(high(bits.y))}};
}

__device__ inline void store4(float* p, const Four& f) {
  *reinterpret_cast<float4*>(p) = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
}
template <class T>
__device__ inline void store4(T* p, const Four& f) {
  const auto pair = [](float a, float b) {
    return static_cast<uint32_t>(narrow<T>(a).bits) | static_cast<uint32_t>(narrow<T>(b).bits) << 16;
  };
  *reinterpret_cast<uint2*>(p) = make_uint2(pair(f.v[0], f.v[1]), pair(f.v[2], f.v[3]));
}

/// Largest of the warp's values; none is NaN.
__device__ inline float warp_max(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, distance));
  return x;
}
__device__ inline float warp_min(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x = fminf(x, __shfl_xor_sync(~0u, x, distance));
  return x;
}

/// 1.5 * 2^23: adding it rounds to the nearest integer, to even as lrint does, which is then in the low bits.
inline constexpr float kRound = 12582912.0f;

/// numerics::quantize with the integer in the low bits of the result (as a byte: two's complement). fmaxf
/// passes over NaN as the contract wants.
__device__ inline uint32_t quantize_bits(float x, float inverse, float low, float high) {
  return __float_as_uint(fminf(fmaxf(x * inverse, low), high) + kRound);
}

/// 1 / x, refined once: correctly rounded where neither is near the ends of the range.
__device__ inline float refined_reciprocal(float x) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  return fmaf(fmaf(-x, reciprocal, 1.0f), reciprocal, reciprocal);
}

/// The low bytes of four words, the first in the lowest byte.
__device__ inline uint32_t low_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

/// numerics::sum_of_squares of x in shared memory by half a warp: lane i of its 16 carries partial sum i; the
/// result is in all of them. The other half may have another x. The chain of fma is what takes the time:
/// loads run a batch ahead of it, in two sets of registers that take turns.
template <class T>
__device__ float sum_of_squares(const T* x, int n) {
  constexpr int kBatch = 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const T* from = x + lane % 16;
  float partial = 0.0f;
  const auto load = [&](float(&batch)[kBatch], int first) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) batch[j] = widen(from[(first + j) * 16]);
  };
  const auto add = [&](const float(&batch)[kBatch]) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) partial = fmaf(batch[j], batch[j], partial);
  };
  int left = n / 16;
  float even[kBatch], odd[kBatch];
  if (left >= kBatch) load(even, 0);
#pragma unroll 1
  for (; left >= 3 * kBatch; left -= 2 * kBatch, from += 2 * kBatch * 16) {
    load(odd, kBatch);
    add(even);
    load(even, 2 * kBatch);
    add(odd);
  }
  if (left >= 2 * kBatch) {
    load(odd, kBatch);
    add(even);
    add(odd);
    left -= 2 * kBatch, from += 2 * kBatch * 16;
  } else if (left >= kBatch) {
    add(even);
    left -= kBatch, from += kBatch * 16;
  }
#pragma unroll 1
  for (; left > 0; --left, from += 16) {
    const float f = widen(*from);
    partial = fmaf(f, f, partial);
  }
  if (lane % 16 < n % 16) {
    const float f = widen(*from);
    partial = fmaf(f, f, partial);
  }
  for (int width = 8; width >= 1; width /= 2) partial += __shfl_down_sync(~0u, partial, width, 16);
  return __shfl_sync(~0u, partial, 0, 16);
}

/// Adds what the warp's lanes have to *to, of which others add, too.
__device__ inline void add_of_warp(int* to, int of_lane) {
  const int of_warp = __reduce_add_sync(~0u, of_lane);
  if (threadIdx.x % 32 == 0) atomicAdd(to, of_warp);
}

}  // namespace atom::cuda::fused
