#pragma once

#include <cuda_runtime.h>
#include <utility>

#include "base/error.h"

/// Error checks and launches of the CUDA kernels. For .cu files.
namespace atom::cuda {

/// Throws Error naming the call when `status` is not cudaSuccess.
inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) fail("CUDA: {}: {}", call, cudaGetErrorString(status));
}

#define ATOM_CUDA_CHECK(call) ::atom::cuda::check((call), #call)

/// Streaming multiprocessors of the current device.
inline int sm_count() {
  int device = 0, count = 0;
  ATOM_CUDA_CHECK(cudaGetDevice(&device));
  ATOM_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

struct LaunchOptions {
  /// Blocks along x that share a cluster.
  int cluster = 1;
  /// Programmatic dependent launch: the kernel may begin before the one ahead of it has ended, and executes
  /// griddepcontrol.wait before it reads what that one wrote and before it writes at all.
  bool dependent = true;
};

/// Launches `kernel` on `stream`; more than 48 KB of dynamic shared memory is asked for as needed. Throws
/// Error.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            const LaunchOptions& options, Arguments&&... arguments) {
  // The limit of 48 KB holds for static and dynamic shared memory together.
  if (shared_bytes > 32 * 1024) {
    ATOM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(shared_bytes)));
  }
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (options.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(options.cluster), 1, 1};
  }
  if (options.dependent) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  ATOM_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...));
}

#if defined(__CUDACC__)
/// Waits until everything that kernels ahead of this one wrote can be read, and may be overwritten.
__device__ __forceinline__ void wait_for_dependencies() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// Lets the kernel behind this one begin; it still waits for this one's end before it reads its results.
__device__ __forceinline__ void launch_dependents() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
#endif

}  // namespace atom::cuda
