#include "kernels/cuda/gemm_w4a4/stream_config.h"

#include <algorithm>

namespace atom::cuda {
namespace {

constexpr int64_t kRowsOfBlock = 16;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

StreamConfig stream_config(int64_t n, int64_t tokens, int sm_count) {
  StreamConfig config;
  config.token_tiles = std::max<int64_t>(1, ceil_div(tokens, kMaxStreamTokens));
  config.ctas = std::min<int64_t>(sm_count, ceil_div(n, kRowsOfBlock));
  return config;
}

}  // namespace atom::cuda
