#pragma once

#include <string>

#include "base/thread_pool.h"
#include "tensor/memory.h"

namespace atom {

/// Instruction sets in ascending order; a level includes those before it.
enum class CpuIsa : int { reference = 0, avx2 = 1, avx512 = 2, avx512vnni = 3 };

namespace cuda {
class Device;
}

/// What the ops run on. Passed to every op; owned by the application. For a CPU: the thread pool and the best
/// instruction set that may be used. For a GPU: also `cuda`, and `memory`, in which all views that ops get
/// then lie.
struct DeviceContext {
  ThreadPool* pool = nullptr;
  CpuIsa isa = CpuIsa::reference;
  cuda::Device* cuda = nullptr;
  Memory* memory = nullptr;
  /// Whether every float operation keeps the contract's order, so that a GPU gives the CPU's bits. Without it
  /// a GPU may compute attention in FP16 on tensor cores and take dense products from cuBLAS.
  bool exact = true;
};

/// The best instruction set that this processor and operating system offer.
CpuIsa detect_cpu_isa();

/// "reference", "avx2", "avx512", "avx512vnni".
const char* name_of(CpuIsa isa);

/// Parses `name`; throws UsageError when it is unknown or this processor lacks it.
CpuIsa parse_cpu_isa(const std::string& name);

}  // namespace atom
