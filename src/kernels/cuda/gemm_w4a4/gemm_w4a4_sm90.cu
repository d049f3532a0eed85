#include "base/error.h"
#include "kernels/cuda/gemm_w4a4/arguments.h"
#include "kernels/cuda/gemm_w4a4/gemm_w4a4.h"
#include "kernels/cuda/gemm_w4a4/launch.h"
#include "kernels/cuda/gemm_w4a4/tile_config.h"
#include "kernels/integer_scales.h"

namespace atom::cuda {

void check_gemm(const GemmW4A4& gemm) {
  // The kernels count rows, units, tokens and tiles in 32 bits.
  constexpr int64_t kLimit = int64_t{1} << 24;
  if (gemm.n < 1 || gemm.n > kLimit || gemm.groups < 1 || gemm.groups > 65536 || gemm.n_outlier < 0 ||
      gemm.n_outlier > 65536 || gemm.tokens < 0 || gemm.tokens > kLimit) {
    fail("W4A4 GEMM: n {}, groups {}, outliers {}, tokens {} out of range", gemm.n, gemm.groups,
         gemm.n_outlier, gemm.tokens);
  }
  if (!integer_scales::fits(gemm.groups * kUnitChannels, gemm.n_outlier)) {
    fail("W4A4 GEMM: the sum of {} groups and {} outliers may not fit in 32 bits", gemm.groups,
         gemm.n_outlier);
  }
  if (gemm.n * gemm.tokens >= int64_t{1} << 40) {
    fail("W4A4 GEMM: {} x {} outputs", gemm.tokens, gemm.n);
  }
  if (gemm.y_stride < gemm.n) fail("W4A4 GEMM: rows of {} elements, {} apart", gemm.n, gemm.y_stride);
  if (!is_float(gemm.y_dtype)) fail("W4A4 GEMM: output type {}", name_of(gemm.y_dtype));
  const WeightTiles tiles{gemm.n, gemm.groups, gemm.n_outlier};
  if (tiles.bytes() >= int64_t{1} << 32) fail("W4A4 GEMM: a weight of {} bytes", tiles.bytes());
}

void gemm_w4a4_sm90(const GemmContext& context, const GemmW4A4& gemm) {
  check_gemm(gemm);
  if (gemm.tokens == 0) return;
  const WeightTiles weight{gemm.n, gemm.groups, gemm.n_outlier};
  tiles::launch(context, gemm,
                tiles::tile_config(gemm.n, weight.units(), gemm.tokens,
                                   ActivationBlocks::token_stride(gemm.tokens), context.sm_count));
}

}  // namespace atom::cuda
