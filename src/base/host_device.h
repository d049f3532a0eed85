#pragma once

/// Marks functions that CUDA kernels call too, so that host and device share one definition.
#if defined(__CUDACC__)
#define ATOM_HOST_DEVICE __host__ __device__
#else
#define ATOM_HOST_DEVICE
#endif
