#pragma once

#include <cstdint>
#include <cuda_fp16.h>

/// What the large-M GEMM does beside the instructions of wgmma.cuh and ptx.cuh. The accumulators and the
/// registers of A belong to the tensor cores from wgmma::multiply() until a wgmma::wait() that covers its
/// group; claim() keeps the compiler from reading accumulators before that.
namespace atom::cuda::large {

/// Orders every later read of these accumulators after this point.
template <int kCount>
__device__ __forceinline__ void claim(int (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

// Shared memory by its 32-bit address.

__device__ __forceinline__ uint4 load_vector(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ __forceinline__ float2 load_floats(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t load_half(uint32_t address) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ float to_float(uint32_t half_bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(half_bits)));
}
/// At the same barrier of CTA `rank` of the cluster. It says only that reads are done: no fence of the
/// cluster's.
__device__ __forceinline__ void arrive_remote_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
/// The same value in a register that the compiler will not compute anew in every use.
__device__ __forceinline__ uint32_t pin(uint32_t value) {
  return __shfl_sync(0xFFFFFFFFu, value, threadIdx.x % 32);
}

template <int kRegisters>
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace atom::cuda::large
