// LinearFloat, reference. y [m, n] = x [m, k] * w [n, k]^T, w row-major in f32, f16 or bf16.
// Every output is one accumulator from 0, acc = fma(x[m, k], w[n, k], acc) over ascending k; then y = acc or
// y + acc. The vector kernels keep that chain for every output and only compute many outputs at once.

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/linear/partition.h"
#include "kernels/reference/linear.h"
#include "tensor/half.h"

namespace atom::reference {
namespace {

void load_row(DType dtype, const void* w, int64_t row, int64_t k, float* out) {
  const auto* bytes = static_cast<const std::byte*>(w) + row * k * static_cast<int64_t>(size_of(dtype));
  if (dtype == DType::f32) {
    std::memcpy(out, bytes, static_cast<size_t>(k) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < k; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + 2 * i, sizeof(bits));
    out[i] = dtype == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

}  // namespace

void linear_float(const DeviceContext& device, const LinearFloat& op) {
  const MatrixView<const float> x = op.x.floats();
  const int64_t k = x.cols;
  for_chunks(device, op.y.cols, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<float> w(static_cast<size_t>(k));
    for (int64_t n = begin; n < end; ++n) {
      load_row(op.dtype, op.w, n, k, w.data());
      for (int64_t m = 0; m < x.rows; ++m) {
        float acc = 0.0f;
        for (int64_t i = 0; i < k; ++i) acc = std::fma(x(m, i), w[static_cast<size_t>(i)], acc);
        op.y(m, n) = op.accumulate ? op.y(m, n) + acc : acc;
      }
    }
  });
}

}  // namespace atom::reference
