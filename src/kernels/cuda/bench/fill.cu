// Random operands of benchmarks, made on the device: one 4-byte word a thread and step, from a hash of its
// index and the seed (the finalizer of MurmurHash3, 64 bits). Which bits of the word become what is Noise's
// choice; only `w4a16` depends on the address, as the last 256 bytes of each unit are fp16 scales.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/baseline/w4a16/config.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda_bench.h"

namespace atom {
namespace {

constexpr int kThreads = 256;

__device__ uint32_t hash(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(x ^ x >> 33);
}

/// Uniform in [0, 1) from 16 bits.
__device__ float uniform(uint32_t bits) {
  return static_cast<float>(bits & 0xFFFF) * 0x1p-16f;
}

__device__ uint32_t half_bits(float x) {
  return __half_as_ushort(__float2half_rn(x));
}

__device__ uint32_t bfloat16_bits(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

__device__ uint32_t scale_bits(uint32_t r) {
  return half_bits(0.005f + 0.01f * uniform(r)) | half_bits(0.005f + 0.01f * uniform(r >> 16)) << 16;
}

__device__ uint32_t word(Noise noise, uint32_t r, uint64_t byte) {
  switch (noise) {
    case Noise::bytes:
      return r;
    case Noise::e4m3:
      return r & 0xBFBFBFBFu;
    case Noise::f16:
      return half_bits(uniform(r) - 0.5f) | half_bits(uniform(r >> 16) - 0.5f) << 16;
    case Noise::bf16:
      return bfloat16_bits(uniform(r) - 0.5f) | bfloat16_bits(uniform(r >> 16) - 0.5f) << 16;
    case Noise::f32_scales:
      return __float_as_uint(0.005f + 0.01f * uniform(r));
    case Noise::w4a16:
      return byte % cuda::baseline::w4a16::kUnitBytes < cuda::baseline::w4a16::kValueBytes ? r
                                                                                           : scale_bits(r);
  }
  return 0;
}

__global__ void fill(uint32_t* data, uint64_t words, Noise noise, uint64_t seed) {
  for (uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < words;
       i += uint64_t{gridDim.x} * kThreads) {
    data[i] = word(noise, hash(i ^ seed << 40), i * 4);
  }
}

}  // namespace

void cuda_fill(const DeviceContext& device, void* data, size_t bytes, Noise noise, uint64_t seed) {
  if (bytes < 4) return;
  fill<<<2048, kThreads, 0, cuda::of(device).stream()>>>(static_cast<uint32_t*>(data), bytes / 4, noise,
                                                         seed);
  ATOM_CUDA_CHECK(cudaGetLastError());
}

}  // namespace atom
