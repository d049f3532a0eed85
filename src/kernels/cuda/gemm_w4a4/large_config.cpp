#include "kernels/cuda/gemm_w4a4/large_config.h"

#include <algorithm>

namespace atom::cuda::large {
namespace {

constexpr LargeConfig kConfigs[] = {{128, 256, 1}, {192, 128, 1}, {128, 128, 1}, {192, 64, 1},
                                    {128, 64, 1},  {192, 32, 1},  {128, 32, 1},  {128, 256, 2},
                                    {128, 128, 2}, {128, 64, 2},  {128, 32, 2}};

/// Microseconds that a tile takes per unit of channels, and besides, on an H100 (from Llama-7B's four shapes
/// at 32 to 4,096 tokens).
struct Cost {
  double unit, tile;
};
Cost cost_of(const LargeConfig& config) {
  const bool three = config.rows == 192;  // warpgroups
  switch (config.tokens) {
    case 256:
      return {0.585, 3.0};
    case 128:
      return three ? Cost{0.52, 1.8} : Cost{0.36, 1.5};
    case 64:
      return three ? Cost{0.48, 1.8} : Cost{0.31, 1.6};
    default:
      return three ? Cost{0.46, 1.8} : Cost{0.28, 1.6};
  }
}
/// The exchange of sums in a cluster.
constexpr double kSplitCost = 1.0;

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
    if (token_stride % config.tokens != 0) continue;
    if (config.splits > 1 && units < 4 * config.splits) continue;
    const Cost cost = cost_of(config);
    const int64_t items = ceil_div(n, config.rows) * ceil_div(tokens, config.tokens);
    const int64_t slots = sm_count / config.splits;
    // A CTA of a cluster has one tile, whose ring is not filled while the tile before it is finished.
    if (config.splits > 1 && items > slots) continue;
    const int64_t waves = ceil_div(items, slots);
    const double part = static_cast<double>(ceil_div(units, config.splits)) * cost.unit + cost.tile;
    const double time = static_cast<double>(waves) * (part + (config.splits > 1 ? kSplitCost : 0.0));
    if (least == 0.0 || time < least) best = config, least = time;
  }
  return best;
}

int large_super(const LargeConfig& config, int64_t token_tiles) {
  return static_cast<int>(std::min<int64_t>(token_tiles, 1024 / config.tokens));
}

}  // namespace atom::cuda::large
