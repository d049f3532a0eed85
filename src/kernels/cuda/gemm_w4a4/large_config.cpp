#include "kernels/cuda/gemm_w4a4/large_config.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace atom::cuda::large {
namespace {

constexpr LargeConfig kConfigs[] = {{256, 128, 1}, {192, 128, 1}, {128, 128, 1}, {192, 64, 1}, {128, 64, 1}};

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

LargeCost large_cost(const LargeConfig& config) {
  const double outputs = config.rows * config.tokens / 32.0;
  return {outputs / 0.7, 2000.0};
}

LargeConfig large_config(int64_t n, int64_t units, int64_t tokens, int64_t token_stride, int sm_count) {
  LargeConfig best = {};
  double least = 0.0;
  for (const LargeConfig& config : kConfigs) {
    if (token_stride % config.tokens != 0) continue;
    const int64_t items = ceil_div(ceil_div(n, config.rows), config.cluster) * ceil_div(tokens, config.tokens);
    const int64_t waves = ceil_div(items, sm_count / config.cluster);
    const LargeCost cost = large_cost(config);
    const double cycles = static_cast<double>(waves) * (static_cast<double>(units) * cost.unit + cost.tile);
    if (least == 0.0 || cycles < least) best = config, least = cycles;
  }
  return best;
}

int large_super(const LargeConfig& config, int64_t token_tiles) {
  return static_cast<int>(std::min<int64_t>(token_tiles, 1024 / config.tokens));
}

void fail(const char* what, const char* why) {
  throw Error(std::string("gemm_w4a4_large: ") + what + ": " + why);
}

}  // namespace atom::cuda::large
