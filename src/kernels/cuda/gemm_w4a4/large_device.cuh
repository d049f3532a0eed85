#pragma once

#include <cstdint>
#include <cuda_fp16.h>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

/// What the large-M GEMM does beside the instructions of wgmma.cuh and ptx.cuh. The accumulators and the
/// registers of A belong to the tensor cores from wgmma::multiply() until a wgmma::wait() that covers its
/// group; claim() keeps the compiler from reading accumulators before that.
namespace atom::cuda::large {

using ptx::load_floats, ptx::load_half, ptx::load_vector, ptx::pin, wgmma::claim;

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
template <int kRegisters>
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace atom::cuda::large
