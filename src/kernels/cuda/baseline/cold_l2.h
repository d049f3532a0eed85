#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

namespace atom::cuda::baseline {

/// Empties the L2 cache between timed launches, by reading twice its size of other memory (reading, so that
/// nothing is left to be written back while the next kernel runs).
class ColdL2 {
 public:
  ColdL2();
  ~ColdL2();
  ColdL2(const ColdL2&) = delete;
  ColdL2& operator=(const ColdL2&) = delete;

  void flush(cudaStream_t stream) const;

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace atom::cuda::baseline
