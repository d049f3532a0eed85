#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "kernels/cuda/ptx.cuh"
#include "kernels/kv_view.h"
#include "tensor/dtype.h"

/// What the fast attention kernels share: warp-wide matrix instructions (PTX ISA, "Matrix Fragments for
/// mma.m16n8k16"), asynchronous copies, and how cached integers become fp16 operands.
///
/// An integer of up to 10 bits in the low bits of an fp16 is the subnormal number n * 2^-24, exactly, and the
/// tensor cores multiply subnormals at full speed. So masking is all that widening takes: no offset has to be
/// subtracted, and the powers of two are part of factors that are applied anyway.
namespace atom::cuda::fragments {

using ptx::async_commit;
using ptx::async_wait;
using ptx::shared_address;

/// 16 bytes to shared memory; zeros, and nothing is read, unless `valid`.
__device__ inline void copy_16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void copy_4(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0)
               : "memory");
}
/// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t address, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline uint32_t transpose(uint32_t matrix) {
  uint32_t r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(matrix));
  return r;
}

/// c += a b, a 16 x 16, b 16 x 8.
__device__ inline void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t pack(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline float2 unpack(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

/// Four pairs of a word of nibbles: (0, 4), (1, 5), (2, 6), (3, 7); the second and the last times 16.
__device__ inline void nibbles(uint32_t word, uint32_t (&r)[4]) {
  r[0] = word & 0x000F000Fu;
  r[1] = word & 0x00F000F0u;
  r[2] = word >> 8 & 0x000F000Fu;
  r[3] = word >> 8 & 0x00F000F0u;
}

/// Calls body.operator()<element type>().
template <class Body>
__device__ inline void with_element(DType type, const Body& body) {
  if (type == DType::f32) {
    body.template operator()<float>();
  } else if (type == DType::f16) {
    body.template operator()<__half>();
  } else {
    body.template operator()<__nv_bfloat16>();
  }
}

/// kCount words in a row, loaded in pieces of 16 bytes, or whole where they are less. Loads keep their place
/// among copies.
template <int kCount>
__device__ inline void load_words(const void* from, uint32_t* words) {
  if constexpr (kCount % 4 == 0) {
    const auto* fours = static_cast<const uint4*>(from);
#pragma unroll
    for (int i = 0; i < kCount / 4; ++i) {
      asm volatile("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(words[4 * i]), "=r"(words[4 * i + 1]), "=r"(words[4 * i + 2]),
                     "=r"(words[4 * i + 3])
                   : "l"(fours + i));
    }
  } else if constexpr (kCount == 2) {
    asm volatile("ld.global.nc.v2.b32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "l"(from));
  } else {
    static_assert(kCount == 1);
    asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(words[0]) : "l"(from));
  }
}

/// kCount elements in a row.
template <class T, int kCount>
struct Run {
  static constexpr int kWords = kCount * static_cast<int>(sizeof(T)) / 4;
  uint32_t words[kWords];

  /// Zeros unless `valid`.
  __device__ void load(const T* from, bool valid) {
    if (valid) {
      load_words<kWords>(from, words);
    } else {
#pragma unroll
      for (uint32_t& word : words) word = 0;
    }
  }
  __device__ float operator[](int i) const {
    if constexpr (std::is_same_v<T, float>) return __uint_as_float(words[i]);
    const auto bits = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
    if constexpr (std::is_same_v<T, __half>) return __half2float(__ushort_as_half(bits));
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  }
};

/// 4, 2 or 1 elements in a row, as one store.
template <class T, int kCount>
__device__ inline void store_run(T* to, const float (&x)[kCount]) {
  if constexpr (std::is_same_v<T, float>) {
    if constexpr (kCount == 4) *reinterpret_cast<float4*>(to) = {x[0], x[1], x[2], x[3]};
    if constexpr (kCount == 2) *reinterpret_cast<float2*>(to) = {x[0], x[1]};
    if constexpr (kCount == 1) *to = x[0];
  } else {
    static_assert(kCount == 4);
    if constexpr (std::is_same_v<T, __half>) {
      *reinterpret_cast<uint2*>(to) = {pack(x[0], x[1]), pack(x[2], x[3])};
    } else {
      const __nv_bfloat162 low = __floats2bfloat162_rn(x[0], x[1]);
      const __nv_bfloat162 high = __floats2bfloat162_rn(x[2], x[3]);
      *reinterpret_cast<uint2*>(to) = {*reinterpret_cast<const uint32_t*>(&low),
                                       *reinterpret_cast<const uint32_t*>(&high)};
    }
  }
}

}  // namespace atom::cuda::fragments
