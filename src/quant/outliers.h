#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atom {

/// Order of the channels of a quantized input (paper section 4.1): the `n_outlier` channels with the largest
/// sums of squares come last, in ascending order of their sums; the others stay before them in their own
/// order. Ties go by channel. result[i] is the channel that comes i-th.
///
/// Sorting the others as well would let a group share its scale among channels of like size, but GPTQ then
/// carries the errors of the small channels into the large ones: on SmolLM2, calibrated on 16 samples, it
/// costs 5% of perplexity.
std::vector<int32_t> outlier_permutation(std::span<const double> squares, int64_t n_outlier);

}  // namespace atom
