#pragma once

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "base/error.h"

/// Error checks of the libraries' calls, as ATOM_CUDA_CHECK of runtime.h.
namespace atom::cuda {

inline void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("cuBLAS: {}: {}", call, cublasGetStatusString(status));
}

inline void check(cusolverStatus_t status, const char* call) {
  if (status != CUSOLVER_STATUS_SUCCESS) fail("cuSOLVER: {}: status {}", call, static_cast<int>(status));
}

#define ATOM_LIBRARY_CHECK(call) ::atom::cuda::check((call), #call)

}  // namespace atom::cuda
