#pragma once

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

/// What the GEMM does beside the instructions of wgmma.cuh and ptx.cuh. The accumulators and
/// the registers of A belong to the tensor cores from wgmma::multiply() until a wgmma::wait() that covers its
/// group; claim() keeps the compiler from reading accumulators before that.
namespace atom::cuda::tiles {

using ptx::load_16_bits, ptx::load_vector, ptx::pin, wgmma::claim;

__device__ __forceinline__ uint32_t load_word(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ int2 load_integers(uint32_t address) {
  int2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void store_words(uint32_t address, int x, int y) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void store_vector(uint32_t address, int4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}
/// In one piece, which the compiler does not always leave it.
__device__ __forceinline__ void store_global(uint4* to, const uint4& v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
/// Four 8 x 8 matrices of 16-bit elements, transposed; a lane has two elements of a row of each and gives the
/// address of one row of what is written.
__device__ __forceinline__ void store_matrices_transposed(uint32_t address, const uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
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

/// INT4 values times their row's multiplier, as INT8: the fragments of 32 channels, from two words of packed
/// weights (rows g in their low nibbles, rows g + 8 in the high ones). kUnsigned: plus 128, one instruction
/// less for four of them. What 128 adds to a sum is 128 times the sum of the token's values; the epilogue
/// subtracts that. Numbers around 128 take the tensor cores more power, though.
template <bool kUnsigned>
class Unpack {
 public:
  static constexpr int kOffset = 128;

  __device__ __forceinline__ Unpack() : eights_(pin(0x88888888u)) {}

  /// `multipliers`: of row g in the low byte, of row g + 8 in the next one.
  __device__ __forceinline__ void set(uint32_t multipliers) {
    k0_ = multipliers & 0xFF, k1_ = multipliers >> 8;
    offset0_ = 0x80808080u - k0_ * 0x08080808u, offset1_ = 0x80808080u - k1_ * 0x08080808u;
  }
  __device__ __forceinline__ void operator()(uint32_t (&a)[4], uint32_t low_k, uint32_t high_k) const {
    a[0] = scaled(low_k, k0_, offset0_), a[1] = scaled(low_k >> 4, k1_, offset1_);
    a[2] = scaled(high_k, k0_, offset0_), a[3] = scaled(high_k >> 4, k1_, offset1_);
    // Not computed later than here, among the instructions of a product.
    asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
  }

 private:
  /// Four at once: with z = q + 8, no byte of z * k + (128 - 8 k) = 128 + k q overflows.
  __device__ __forceinline__ uint32_t scaled(uint32_t nibbles, uint32_t k, uint32_t offset) const {
    // (nibbles ^ eights) & 0x0F0F0F0F: one instruction only if one of the constants is in a register
    uint32_t z;
    asm("lop3.b32 %0, %1, %2, %3, 0x28;" : "=r"(z) : "r"(nibbles), "r"(eights_), "n"(0x0F0F0F0F));
    return kUnsigned ? z * k + offset : (z * k + offset) ^ 0x80808080u;
  }

  uint32_t eights_, k0_ = 0, k1_ = 0, offset0_ = 0, offset1_ = 0;
};

/// wgmma::descriptor() as its low word: the high one is the same for all tiles.
__device__ __forceinline__ uint32_t low_word(uint32_t shared_address) {
  return static_cast<uint32_t>(wgmma::descriptor(shared_address));
}
__device__ __forceinline__ uint64_t with_low_word(uint32_t low) {
  return wgmma::descriptor(0) >> 32 << 32 | low;
}

}  // namespace atom::cuda::tiles
