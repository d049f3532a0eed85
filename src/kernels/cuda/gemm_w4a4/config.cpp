#include "kernels/cuda/gemm_w4a4/config.h"

#include <algorithm>

#include "kernels/cuda/layout.h"

namespace atom::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int tokens_of_tile(int64_t tokens, int smallest) {
  int tile = smallest;
  while (tile < 128 && tile < tokens) tile *= 2;
  return tile;
}

// Times of a round of CTAs, in units of K of one CTA of small_kernel.cuh, as measured on an H200 for the
// shapes of Llama-7B, 8B and 70B (docs/kernels/gemm.md).

/// A fixed part, and the exchange of sums in a cluster.
constexpr double kRoundCost = 3.0, kSplitCost = 1.2;
/// Of divided_kernel.cuh, with whole tiles.
constexpr double kWholeCost = 0.9;
/// The exchange of sums through global memory.
double exchange_cost(int tokens, double ctas_of_tile) {
  return (tokens <= 32 ? 8.0 : 7.0) + 1.2 * (ctas_of_tile + 1.0);
}

double small_cost(const GemmConfig& config, int64_t units, int sm_count) {
  // CTAs that share a multiprocessor overlap, so a round takes as long as one of them, and rounds add up.
  const int64_t slots = int64_t{sm_count} * resident_ctas(config.tokens);
  // Larger clusters leave multiprocessors over in the parts of the chip that a cluster must lie in.
  const int64_t rounds =
      ceil_div(config.ctas * config.token_tiles, config.splits > 2 ? slots * 9 / 10 : slots);
  return static_cast<double>(rounds) * (static_cast<double>(ceil_div(units, config.splits)) + kRoundCost +
                                        (config.splits > 1 ? kSplitCost * config.splits : 0));
}

}  // namespace

int resident_ctas(int tokens) {
  return tokens <= 64 ? 2 : 1;
}

GemmConfig stream_config(int64_t n, int64_t tokens, int sm_count) {
  GemmConfig config;
  config.kind = GemmConfig::Kind::stream;
  config.tokens = tokens <= 8 ? 8 : 16;
  config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, config.tokens));
  config.ctas = std::min<int64_t>(sm_count, ceil_div(n, 16));
  return config;
}

GemmConfig small_config(int64_t n, int64_t units, int64_t tokens, int sm_count) {
  GemmConfig best;
  for (int splits = 1; splits <= kMaxSplits; ++splits) {
    if (splits > 1 && units < 2 * splits) break;
    GemmConfig config;
    config.kind = GemmConfig::Kind::small;
    config.tokens = tokens_of_tile(tokens, 32);
    config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, config.tokens));
    config.splits = splits;
    config.ctas = ceil_div(n, kTileRows) * splits;
    if (splits == 1 || small_cost(config, units, sm_count) < small_cost(best, units, sm_count)) best = config;
  }
  return best;
}

GemmConfig divided_config(int64_t n, int64_t units, int64_t tokens, bool even, int sm_count) {
  GemmConfig config;
  config.kind = GemmConfig::Kind::divided;
  config.tokens = tokens_of_tile(tokens, 8);
  config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, config.tokens));
  config.ctas = ceil_div(n, kTileRows);
  // CTAs that wait for each other must run at one time.
  if (!even || config.token_tiles > 1) return config;
  config.even = true;
  config.ctas = std::min(int64_t{sm_count} * resident_ctas(config.tokens), config.ctas * units);
  return config;
}

size_t scratch_bytes(const GemmConfig& config) {
  if (!config.even) return 0;
  return static_cast<size_t>(2 * config.ctas * config.tokens) * kTileRows * sizeof(float);
}

GemmConfig gemm_config(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, bool exact,
                       int sm_count) {
  if (tokens >= kMinLargeTokens && n_outlier <= kMaxLargeOutliers) {
    GemmConfig config;
    config.kind = GemmConfig::Kind::large;
    return config;
  }
  const int64_t units = WeightTiles{n, groups, n_outlier}.units();
  const GemmConfig whole = divided_config(n, units, tokens, false, sm_count);
  if (exact || whole.token_tiles > 1) return whole;
  if (tokens <= kMaxStreamTokens) return stream_config(n, tokens, sm_count);
  const GemmConfig small = small_config(n, units, tokens, sm_count);
  const GemmConfig even = divided_config(n, units, tokens, true, sm_count);
  const int64_t slots = int64_t{sm_count} * resident_ctas(whole.tokens);
  const double each = static_cast<double>(whole.ctas * units) / static_cast<double>(even.ctas);
  const double even_cost = each + exchange_cost(even.tokens, static_cast<double>(units) / each);
  const double whole_cost = kWholeCost * static_cast<double>(ceil_div(whole.ctas, slots)) *
                            (static_cast<double>(units) + kRoundCost);
  if (std::min(even_cost, whole_cost) >= small_cost(small, units, sm_count)) return small;
  return whole_cost <= even_cost ? whole : even;
}

}  // namespace atom::cuda
