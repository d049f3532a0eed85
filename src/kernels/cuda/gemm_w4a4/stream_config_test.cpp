#include "kernels/cuda/gemm_w4a4/stream_config.h"

#include <gtest/gtest.h>

namespace atom::cuda {
namespace {

TEST(StreamConfig, CoversTokensAndRows) {
  for (const int64_t n : {1, 16, 100, 128, 576, 4096, 12288, 22016, 57344, 128256}) {
    for (const int64_t tokens : {1, 2, 8, 9, 16, 17, 32, 600}) {
      for (const int sm_count : {1, 78, 132}) {
        const StreamConfig config = stream_config(n, tokens, sm_count);
        SCOPED_TRACE(::testing::Message() << n << " " << tokens << " " << sm_count);
        EXPECT_GE(config.token_tiles * kMaxStreamTokens, tokens);
        EXPECT_LT((config.token_tiles - 1) * kMaxStreamTokens, tokens);
        EXPECT_GT(config.ctas, 0);
        EXPECT_LE(config.ctas, sm_count);
        EXPECT_LE(config.ctas, (n + 15) / 16);
      }
    }
  }
}

}  // namespace
}  // namespace atom::cuda
