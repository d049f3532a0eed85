// Opens bytes as a safetensors file and reads every tensor in it. Only atom::Error may come out.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const atom::SafetensorsFile file(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
    for (const atom::SafetensorsEntry& entry : file.entries()) {
      const atom::Tensor tensor = file.load(entry.name);
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      if (atom::is_float(tensor.dtype)) file.read_float(entry.name, values);
    }
  } catch (const atom::Error&) {
  }
  return 0;
}
