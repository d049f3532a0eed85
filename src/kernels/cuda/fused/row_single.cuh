#pragma once

// (RMSNorm +) gather + quantize of few tokens, a block a token: row_quantize.cuh says what is computed. Made
// for the shortest time: channels and norm weights are fetched before the kernel ahead has ended; the row
// comes to shared memory by 16-byte cp.async; while the last warp walks the 16 chains of the sum of squares
// (the contract's order: hidden / 16 dependent fma), the others gather.
// Source: Atom, section 4.3; docs/numerics.md.

#include "kernels/cuda/fused/row_quantize.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::fused {

template <class In, bool kNorm, int kUnits>
__global__ void __launch_bounds__(max_single_threads(kUnits))
    __maxnreg__(max_single_registers(kUnits, sizeof(In))) row_single_kernel(const RowQuantize a) {
  extern __shared__ __align__(16) unsigned char single_row[];
  __shared__ float shared_factor;
  __shared__ Shares<1> shares;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = warp_index();
  const int quantizers = static_cast<int>(blockDim.x) / 32 - (kNorm ? 1 : 0);
  const int token = static_cast<int>(blockIdx.x);
  const bool walks = kNorm && warp == quantizers;
  launch_dependents();
  // The walking warp's units lie behind the last.
  const WarpUnits<In, kNorm, kUnits> units(a, walks ? a.units : warp * kUnits);
  wait_for_dependencies();

  const auto* from =
      reinterpret_cast<const unsigned char*>(static_cast<const In*>(a.x) + int64_t{token} * a.stride);
  const int bytes = copied_bytes<In>(a.k);
  for (int byte = 16 * static_cast<int>(threadIdx.x); byte < bytes;
       byte += 16 * static_cast<int>(blockDim.x)) {
    ptx::async_copy(ptx::shared_address(single_row + byte), from + byte);
  }
  ptx::async_commit();
  ptx::async_wait<0>();
  __syncthreads();
  Four y[1][kUnits];
  float factor = 1.0f;
  if constexpr (kNorm) {
    if (walks) {
      const float sum = sum_of_squares(reinterpret_cast<const In*>(single_row), a.k);
      if (lane == 0) shared_factor = numerics::inverse_rms(sum, a.k, a.eps);
    } else {
      units.gather(single_row, y[0]);
    }
    __syncthreads();
    if (walks) return;
    factor = shared_factor;
  } else {
    units.gather(single_row, y[0]);
  }
  units.normalize(y[0], factor);
  quantize_units(a, token, token + 1, warp * kUnits, y, shares, quantizers);
}

}  // namespace atom::cuda::fused
