#include "kernels/cuda/gemm_w4a4/large_config.h"

#include <algorithm>
#include <array>

namespace atom::cuda::large {
namespace {

/// Microseconds that a tile takes per unit of channels where weights arrive in time, and besides: fitted to
/// the shapes of Llama-7B, Llama-3-8B and Llama-70B on an H200.
struct Known {
  LargeConfig config;
  double unit, tile;
};
constexpr Known kKnown[] = {
    {{128, 256, 1, 1}, 0.570, 4.2}, {{128, 256, 2, 1}, 0.570, 7.4}, {{128, 128, 1, 1}, 0.290, 2.9},
    {{192, 128, 1, 1}, 0.440, 3.7}, {{192, 128, 2, 1}, 0.450, 5.5}, {{128, 128, 2, 1}, 0.310, 4.4},
    {{64, 128, 2, 2}, 0.197, 4.0},  {{128, 64, 1, 1}, 0.242, 2.1},  {{192, 64, 1, 1}, 0.343, 2.0},
    {{192, 64, 2, 1}, 0.335, 3.4},  {{128, 64, 1, 2}, 0.220, 2.8},  {{128, 64, 2, 1}, 0.242, 3.2},
    {{64, 64, 2, 2}, 0.148, 3.2},   {{128, 32, 1, 1}, 0.213, 1.9},  {{192, 32, 1, 1}, 0.299, 1.6},
    {{192, 32, 2, 1}, 0.285, 2.7},  {{128, 32, 1, 2}, 0.187, 2.2},  {{128, 32, 2, 1}, 0.234, 2.4},
    {{64, 32, 2, 2}, 0.139, 2.8},   {{128, 16, 1, 1}, 0.205, 1.6},  {{192, 16, 1, 1}, 0.264, 1.2},
    {{192, 16, 2, 1}, 0.258, 2.5},  {{128, 16, 1, 2}, 0.172, 2.0},  {{128, 16, 2, 1}, 0.227, 2.2},
    {{64, 16, 2, 2}, 0.133, 2.9}};
/// Bytes of weights that all CTAs together read in a microsecond.
constexpr double kBandwidth = 4.3e6;
/// What the next wave costs in addition, where CTAs have one tile: their rings are not filled while the tile
/// before is finished.
constexpr double kNextWave = 1.5;

constexpr auto kConfigs = [] {
  std::array<LargeConfig, std::size(kKnown)> configs;
  for (size_t i = 0; i < configs.size(); ++i) configs[i] = kKnown[i].config;
  return configs;
}();

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
  for (const auto& [config, unit, tile] : kKnown) {
    if (token_stride % config.tokens != 0) continue;
    const int64_t parts = config.splits * config.turns;
    if (parts > 1 && units < 4 * parts) continue;
    const int64_t tiles = ceil_div(n, config.rows) * ceil_div(tokens, config.tokens);
    const int64_t slots = sm_count / config.splits;
    if (config.splits > 1 && tiles > slots) continue;
    const int64_t waves = ceil_div(tiles, slots);
    const auto ctas = static_cast<double>(std::min(tiles, slots) * config.splits);
    const double arrival = ctas * static_cast<double>(config.rows) * 65.0 / kBandwidth;
    const double wave = static_cast<double>(ceil_div(units, config.splits)) * std::max(unit, arrival) + tile;
    const double time =
        static_cast<double>(waves) * wave + (parts > 1 ? static_cast<double>(waves - 1) * kNextWave : 0.0);
    if (least == 0.0 || time < least) best = config, least = time;
  }
  return best;
}

int large_super(int tile_tokens, int64_t token_tiles) {
  return static_cast<int>(std::min<int64_t>(token_tiles, 1024 / tile_tokens));
}

}  // namespace atom::cuda::large
