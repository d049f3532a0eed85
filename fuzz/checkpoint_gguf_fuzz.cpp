// Opens bytes as a GGUF model and reads everything that the file says it has: in one part, or in one for each
// "GGUF" in them where they begin with "split". Only atom::Error may come out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
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
  std::vector<std::span<const std::byte>> parts;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const bool split = rest.starts_with("split");
  if (split) rest.remove_prefix(5);
  do {
    const size_t length = split ? std::min(rest.find("GGUF", 1), rest.size()) : rest.size();
    parts.push_back(std::as_bytes(std::span(rest.data(), length)));
    rest.remove_prefix(length);
  } while (!rest.empty() && parts.size() < 8);
  allow_error([&] { read_all(atom::GgufCheckpoint(parts, "fuzz.gguf")); });
  return 0;
}
