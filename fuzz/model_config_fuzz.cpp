// Reads bytes as a config.json: the shape of the model, and the settings of a packed one. Only atom::Error
// may come out.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "checkpoint/json.h"
#include "checkpoint/packed.h"
#include "model/config.h"

namespace {

template <class Action>
void allow_error(const Action& action) {
  try {
    action();
  } catch (const atom::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  nlohmann::ordered_json config;
  try {
    config = atom::parse_json(std::string_view(reinterpret_cast<const char*>(data), size), "config.json");
  } catch (const atom::Error&) {
    return 0;
  }
  if (!config.is_object()) return 0;
  allow_error([&] {
    const atom::ModelConfig model = atom::ModelConfig::from_json(config, "config.json");
    // What is computed from a shape that was accepted must not overflow.
    if (model.qkv_size() <= 0 || model.hidden <= 0 || model.vocab <= 0) __builtin_trap();
  });
  allow_error([&] {
    const auto settings = atom::QuantizationConfig::from_json(config, "config.json");
    // What was accepted is written as it was read.
    const auto again = atom::QuantizationConfig::from_json(settings.to_json(), "written");
    if (again.to_json() != settings.to_json()) __builtin_trap();
  });
  return 0;
}
