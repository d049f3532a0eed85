#include "tensor/device.h"

#include "base/error.h"

namespace atom {

CpuIsa detect_cpu_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) return CpuIsa::avx512vnni;
  if (avx512) return CpuIsa::avx512;
  if (avx2) return CpuIsa::avx2;
#endif
  return CpuIsa::reference;
}

const char* name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::reference:
      return "reference";
    case CpuIsa::avx2:
      return "avx2";
    case CpuIsa::avx512:
      return "avx512";
    case CpuIsa::avx512vnni:
      return "avx512vnni";
  }
  return "?";
}

CpuIsa parse_cpu_isa(const std::string& name) {
  for (const CpuIsa isa : {CpuIsa::reference, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512vnni}) {
    if (name != name_of(isa)) continue;
    if (isa > detect_cpu_isa()) {
      throw UsageError(fmt::format("instruction set {} asked for, but this processor has {} at most", name,
                                   name_of(detect_cpu_isa())));
    }
    return isa;
  }
  throw UsageError(
      fmt::format("unknown instruction set '{}' (reference, avx2, avx512, avx512vnni)", printable(name)));
}

}  // namespace atom
