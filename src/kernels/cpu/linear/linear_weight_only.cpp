// LinearWeightOnly on a CPU: weights are dequantized to f16, up to 32 MiB of rows at a time, and multiplied
// by the device's LinearFloat, which keeps the reference's chain: results are the reference's, bit for bit.

#include <algorithm>
#include <cassert>

#include "kernels/cpu/linear/dequantize.h"
#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/partition.h"

namespace atom::cpu {
namespace {

constexpr int64_t kSlabBytes = int64_t{32} << 20;

}  // namespace

bool linear_weight_only_supports(const DeviceContext& device, const LinearWeightOnly&) {
  return device.isa > CpuIsa::reference;
}

void linear_weight_only(const DeviceContext& device, const LinearWeightOnly& op) {
  const LowBitWeight w = op.w->view();
  const int64_t k = w.layout.k;
  assert(w.layout.n_outlier == 0 && op.x.cols == k && op.y.cols == w.n);
  const int64_t rows = std::clamp<int64_t>(kSlabBytes / (2 * k), 1, std::max<int64_t>(w.n, 1));
  Buffer<uint16_t> slab(static_cast<size_t>(rows * k));
  for (int64_t first = 0; first < w.n; first += rows) {
    const int64_t count = std::min(rows, w.n - first);
    for_chunks(device, count, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t n = begin; n < end; ++n) dequantize_row(w, first + n, slab.data() + n * k);
    });
    run(device,
        LinearFloat{op.x, DType::f16, slab.data(), op.y.col_range(first, first + count), op.accumulate});
  }
}

}  // namespace atom::cpu
