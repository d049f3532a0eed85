#include "kernels/cuda/gemm_w4a4/tile_config.h"

#include <algorithm>
#include <array>

#include "kernels/cuda/layout.h"

namespace atom::cuda::tiles {
namespace {

/// Microseconds that a tile takes per unit of channels where weights arrive in time, and besides: fitted to
/// the shapes of Llama-7B, Llama-3-8B and Llama-70B on an H200.
struct Known {
  TileConfig config;
  double unit, tile;
};
constexpr Known kKnown[] = {
    {{128, 256, 1, 1}, 0.570, 4.2}, {{128, 256, 2, 1}, 0.590, 5.8}, {{128, 128, 1, 1}, 0.290, 3.1},
    {{192, 128, 1, 1}, 0.440, 3.7}, {{192, 128, 2, 1}, 0.453, 4.4}, {{128, 128, 2, 1}, 0.299, 4.0},
    {{64, 128, 2, 2}, 0.195, 4.3},  {{128, 64, 1, 1}, 0.236, 2.1},  {{192, 64, 1, 1}, 0.327, 2.1},
    {{192, 64, 2, 1}, 0.322, 3.5},  {{128, 64, 1, 2}, 0.220, 3.3},  {{128, 64, 2, 1}, 0.255, 2.5},
    {{64, 64, 2, 2}, 0.148, 3.0},   {{128, 32, 1, 1}, 0.205, 2.0},  {{192, 32, 1, 1}, 0.290, 1.6},
    {{192, 32, 2, 1}, 0.285, 2.4},  {{128, 32, 1, 2}, 0.187, 2.4},  {{128, 32, 2, 1}, 0.234, 1.9},
    {{64, 32, 2, 2}, 0.135, 2.6},   {{128, 16, 1, 1}, 0.196, 1.6},  {{192, 16, 1, 1}, 0.265, 1.4},
    {{192, 16, 2, 1}, 0.270, 2.3},  {{128, 16, 1, 2}, 0.180, 2.0},  {{128, 16, 2, 1}, 0.225, 1.7},
    {{64, 16, 2, 2}, 0.128, 2.5}};
/// Bytes of weights that all CTAs together read in a microsecond.
constexpr double kBandwidth = 4.3e6;
constexpr double kRowBytes = 65.0;  // of a unit
/// Of `tile`, the exchange of sums, which whole tiles of a cluster do without.
constexpr double kExchange = 0.9;
/// What the next wave costs in addition, where CTAs have one tile: their rings are not filled while the tile
/// before is finished.
constexpr double kNextWave = 1.5;

constexpr auto kConfigs = [] {
  std::array<TileConfig, std::size(kKnown)> configs;
  for (size_t i = 0; i < configs.size(); ++i) configs[i] = kKnown[i].config;
  return configs;
}();

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

std::span<const TileConfig> tile_configs() {
  return kConfigs;
}

TileConfig tile_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count) {
  TileConfig best = {};
  double least = 0.0;
  for (const auto& [config, unit, tile] : kKnown) {
    if (token_stride % config.tokens != 0) continue;
    // Their weights have an offset.
    if (config.tokens < 256 && tokens > ActivationBlocks::kMostSummed) continue;
    const int64_t parts = config.splits * config.turns;
    if (parts > 1 && units < 4 * parts) continue;
    const int64_t tiles = ceil_div(n, config.rows) * ceil_div(tokens, config.tokens);
    const TileGrid grid = tile_grid(config, tiles, sm_count);
    // More clusters than fit at one time.
    if (config.splits > 1 && grid.ctas > sm_count) continue;
    const int64_t slots = std::min<int64_t>(grid.ctas, sm_count);
    const double arrival = static_cast<double>(slots * config.rows) * kRowBytes / kBandwidth;
    const auto time_of = [&](int64_t count) {
      return static_cast<double>(count) * std::max(unit, arrival) + tile;
    };
    const int64_t whole = ceil_div(grid.whole_tiles, slots);
    const int64_t shared = ceil_div((tiles - grid.whole_tiles) * config.splits, slots);
    double time = static_cast<double>(whole) * (time_of(units) - (config.splits > 1 ? kExchange : 0.0));
    if (shared > 0) time += time_of(ceil_div(units, config.splits));
    if (shared > 1) time += static_cast<double>(shared - 1) * (time_of(units) + kNextWave);
    if (least == 0.0 || time < least) best = config, least = time;
  }
  return best;
}

TileGrid tile_grid(const TileConfig& config, int64_t tiles, int sm_count) {
  if (config.turns > 1) return {tiles * config.splits, 0};
  if (config.splits == 1) return {std::min<int64_t>(tiles, sm_count), tiles};
  const int64_t clusters = std::max(sm_count / config.splits, 1), ctas = clusters * config.splits;
  const int64_t whole = tiles / ctas * ctas;
  // All tiles are shared, however many clusters that takes.
  if (whole == 0 || tiles - whole > clusters) return {tiles * config.splits, 0};
  return {ctas, whole};
}

int tile_super(int tile_tokens, int64_t token_tiles) {
  return static_cast<int>(std::min<int64_t>(token_tiles, 1024 / tile_tokens));
}

}  // namespace atom::cuda::tiles
