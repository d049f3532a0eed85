#include "model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace atom {

void RopeTable::grow(int64_t needed, const ModelConfig& config, Memory* memory) {
  if (needed <= positions) return;
  // By doubling, so that an answer of any length costs a few tables, and never more than twice what it uses.
  constexpr int64_t kFirst = 512;
  const int64_t grown = std::max(needed, std::min(std::max(2 * positions, kFirst), config.max_positions));
  const std::vector<float> frequencies = rope_frequencies(config);
  const auto half = static_cast<int64_t>(frequencies.size());
  const auto factor = static_cast<float>(config.rope_scaling.attention_factor);
  Buffer<float> host_cos(static_cast<size_t>(grown * half));
  Buffer<float> host_sin(static_cast<size_t>(grown * half));
  for (int64_t p = 0; p < grown; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      // The float product, as the reference implementations have it.
      const float angle = static_cast<float>(p) * frequencies[static_cast<size_t>(i)];
      host_cos[p * half + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
      host_sin[p * half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
    }
  }
  cos = memory == nullptr ? std::move(host_cos) : Buffer<float>::copy_of(host_cos.span(), memory);
  sin = memory == nullptr ? std::move(host_sin) : Buffer<float>::copy_of(host_sin.span(), memory);
  positions = grown;
}

}  // namespace atom
