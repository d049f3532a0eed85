#include "quant/outliers.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace atom {

std::vector<int32_t> outlier_permutation(std::span<const double> squares, int64_t n_outlier) {
  assert(n_outlier >= 0 && n_outlier <= static_cast<int64_t>(squares.size()));
  std::vector<int32_t> order(squares.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return squares[static_cast<size_t>(a)] < squares[static_cast<size_t>(b)];
  });
  std::sort(order.begin(), order.end() - n_outlier);
  return order;
}

}  // namespace atom
