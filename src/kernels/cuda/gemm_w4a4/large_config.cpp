#include "kernels/cuda/gemm_w4a4/large_config.h"

#include <algorithm>

namespace atom::cuda::large {
namespace {

constexpr LargeConfig kConfigs[] = {{192, 128, 1}, {128, 128, 1}, {192, 64, 1}, {128, 64, 1}, {192, 128, 2}};

/// Microseconds that a tile takes per unit of channels, and besides, on an H200 (from Llama-7B's gate/up and
/// down at 256 and 4,096 tokens). 0: not worth choosing. The cluster was slower than two CTAs on their own
/// everywhere.
struct Cost {
  double unit, tile;
};
Cost cost_of(const LargeConfig& config) {
  if (config.cluster > 1) return {};
  if (config.tokens == 128) return config.rows == 192 ? Cost{0.94, 0.5} : Cost{0.68, 0.5};
  return config.rows == 192 ? Cost{0.68, 0.5} : Cost{0.455, 0.3};
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

std::span<const LargeConfig> large_configs() {
  return kConfigs;
}

LargeConfig large_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count) {
  LargeConfig best = {};
  double least = 0.0;
  for (const LargeConfig& config : kConfigs) {
    const Cost cost = cost_of(config);
    if (token_stride % config.tokens != 0 || cost.unit == 0.0) continue;
    const int64_t items = ceil_div(n, config.rows) * ceil_div(tokens, config.tokens);
    const int64_t waves = ceil_div(items, sm_count);
    const double time = static_cast<double>(waves) * (static_cast<double>(units) * cost.unit + cost.tile);
    if (least == 0.0 || time < least) best = config, least = time;
  }
  return best;
}

int large_super(const LargeConfig& config, int64_t token_tiles) {
  return static_cast<int>(std::min<int64_t>(token_tiles, 1024 / config.tokens));
}

}  // namespace atom::cuda::large
