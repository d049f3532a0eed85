#pragma once

#include <cuda_runtime_api.h>
#include <functional>

namespace atom::cuda {

/// What `work` launches on `stream`, as a graph that is the caller's to destroy. Nothing runs. Throws Error,
/// and what `work` throws.
cudaGraphExec_t record(cudaStream_t stream, const std::function<void()>& work);

}  // namespace atom::cuda
