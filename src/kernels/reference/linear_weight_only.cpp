// LinearWeightOnly, reference. y [m, n] = x [m, k] * w [n, k]^T, w canonical INT4 in groups of any length.
// A weight is fp16(q * scale); every output is one accumulator from 0, acc = fma(x[m, k], w[n, k], acc) over
// ascending k; then y = acc or y + acc: LinearFloat on the dequantized f16 weights.

#include <cassert>
#include <cmath>
#include <vector>

#include "kernels/cpu/linear/dequantize.h"
#include "kernels/cpu/linear/partition.h"
#include "kernels/reference/linear.h"
#include "tensor/half.h"

namespace atom::reference {

void linear_weight_only(const DeviceContext& device, const LinearWeightOnly& op) {
  const MatrixView<const float> x = op.x.floats();
  const LowBitWeight w = op.w->view();
  assert(w.layout.n_outlier == 0 && w.layout.k == x.cols && op.y.rows == x.rows && op.y.cols == w.n);
  for_chunks(device, w.n, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<uint16_t> row(static_cast<size_t>(x.cols));
    for (int64_t n = begin; n < end; ++n) {
      dequantize_row(w, n, row.data());
      for (int64_t m = 0; m < x.rows; ++m) {
        float acc = 0.0f;
        for (int64_t i = 0; i < x.cols; ++i) {
          acc = std::fma(x(m, i), half_to_float(row[static_cast<size_t>(i)]), acc);
        }
        op.y(m, n) = op.accumulate ? op.y(m, n) + acc : acc;
      }
    }
  });
}

}  // namespace atom::reference
