#include "kernels/cuda/gemm_w4a4/config.h"

#include <algorithm>

#include "kernels/cuda/layout.h"

namespace atom::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Time of a round of CTAs, in units of K of one CTA: a fixed part, and the exchange of sums in a cluster.
constexpr double kRoundCost = 3.0, kSplitCost = 1.2;

}  // namespace

GemmConfig stream_config(int64_t n, int64_t tokens, int sm_count) {
  GemmConfig config;
  config.kind = GemmConfig::Kind::stream;
  config.tokens = tokens <= 8 ? 8 : 16;
  config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, config.tokens));
  config.ctas = std::min<int64_t>(sm_count, ceil_div(n, 16));
  return config;
}

GemmConfig small_config(int64_t n, int64_t units, int64_t tokens, bool exact, int sm_count) {
  GemmConfig config;
  config.kind = GemmConfig::Kind::small;
  config.tokens = tokens <= 32 ? 32 : tokens <= 64 ? 64 : 128;
  config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, config.tokens));
  const int64_t tiles = ceil_div(n, kTileRows);
  // Two CTAs share a multiprocessor; what they do overlaps, so a round takes as long as one of them, and
  // rounds add up.
  const int64_t slots = static_cast<int64_t>(sm_count) * (config.tokens <= 64 ? 2 : 1);
  double best = 0.0;
  for (int splits = 1; splits <= (exact ? 1 : kMaxSplits); ++splits) {
    if (splits > 1 && units < 2 * splits) break;
    // Larger clusters leave multiprocessors over in the parts of the chip that a cluster must lie in.
    const int64_t rounds = ceil_div(tiles * splits * config.token_tiles, splits > 2 ? slots * 9 / 10 : slots);
    const double cost = static_cast<double>(rounds) * (static_cast<double>(ceil_div(units, splits)) +
                                                       kRoundCost + (splits > 1 ? kSplitCost * splits : 0));
    if (splits == 1 || cost < best) best = cost, config.splits = splits;
  }
  config.ctas = tiles * config.splits;
  return config;
}

GemmConfig gemm_config(int64_t n, int64_t groups, int64_t n_outlier, int64_t tokens, bool exact,
                       int sm_count) {
  if (tokens <= kMaxStreamTokens) return stream_config(n, tokens, sm_count);
  if (tokens >= kMinLargeTokens && n_outlier <= kMaxLargeOutliers) {
    GemmConfig config;
    config.kind = GemmConfig::Kind::large;
    return config;
  }
  return small_config(n, WeightTiles{n, groups, n_outlier}.units(), tokens, exact, sm_count);
}

}  // namespace atom::cuda
