// Opens bytes as a GGUF model and reads everything that the file says it has. Only atom::Error may come out.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "checkpoint/gguf_checkpoint.h"

namespace {

/// Larger tensors only cost time.
constexpr uint64_t kMaxTensorBytes = 1 << 16;

template <class Action>
void allow_error(const Action& action) {
  try {
    action();
  } catch (const atom::Error&) {
  }
}

void read_all(const atom::GgufCheckpoint& checkpoint) {
  allow_error([&] { (void)checkpoint.config().dump(); });
  allow_error([&] { (void)checkpoint.tokenizer_json().dump(); });
  allow_error([&] { (void)checkpoint.tokenizer_config().dump(); });
  for (const std::string& name : checkpoint.names()) {
    if (checkpoint.info(name).bytes > kMaxTensorBytes) continue;
    const atom::Tensor tensor = checkpoint.load(name);
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    checkpoint.read_float(name, values);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  allow_error([&] { read_all(atom::GgufCheckpoint(std::as_bytes(std::span(data, size)), "fuzz.gguf")); });
  return 0;
}
