// Driver of LinearFloat for f16 and bf16 weights (lm_head, 16-bit baselines): divides y [m, n] into strips of
// 32 rows of w by runs of tokens. A worker transposes a strip's weights, 512 channels at a time, into a panel
// in its cache and multiplies all tokens of the run by it; sums rest in an [tokens, 32] buffer in between,
// which does not change a chain of fma. So every output is the reference's, bit for bit.

#include <algorithm>
#include <cassert>

#include "kernels/cpu/linear/float_job.h"
#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/partition.h"

namespace atom::cpu {
namespace {

/// Channels of a panel: 32 KiB of it.
constexpr int64_t kPanelChannels = 512;
/// Tokens of a run, a multiple of every kernel's tile: their activations stay in the second-level cache.
constexpr int64_t kRun = 132;
/// Bytes of weights worth handing out.
constexpr int64_t kMinBytes = 64 * 1024;

void store(const LinearFloat& op, int64_t row, int64_t rows, int64_t token, int64_t tokens,
           const float* acc) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* y = op.y.data + (token + t) * op.y.stride + row;
    const float* sums = acc + t * kPanelRows;
    if (op.accumulate) {
      for (int64_t r = 0; r < rows; ++r) y[r] += sums[r];
    } else {
      std::copy_n(sums, rows, y);
    }
  }
}

void run_strip(const LinearFloat& op, const FloatKernel& kernel, int64_t row, int64_t token, int64_t tokens,
               uint16_t* panel, float* wide, float* acc) {
  const int64_t k = op.x.cols;
  const int64_t rows = std::min(kPanelRows, op.y.cols - row);
  const auto* w = static_cast<const char*>(op.w) + row * k * 2;
  std::fill_n(acc, tokens * kPanelRows, 0.0f);
  for (int64_t k0 = 0; k0 < k; k0 += kPanelChannels) {
    const int64_t count = std::min(kPanelChannels, k - k0);
    const int64_t next = k0 + count < k ? count : kPanelRows * k - k0;
    kernel.transpose(w + k0 * 2, k, rows, count, next, panel);
    kernel.multiply(panel, count, op.x.floats().row(token) + k0, op.x.stride, tokens, wide, acc);
  }
  store(op, row, rows, token, tokens, acc);
}

void run_float(const DeviceContext& device, const LinearFloat& op, const FloatKernel& kernel) {
  assert(op.x.rows == op.y.rows);
  const int64_t m = op.x.rows;
  const int64_t n = op.y.cols;
  if (m == 0 || n == 0) return;
  const int64_t strips = (n + kPanelRows - 1) / kPanelRows;
  const int64_t runs = (m + kRun - 1) / kRun;
  const int64_t workers = worker_count(device);
  Buffer<uint16_t> panels(static_cast<size_t>(workers * kPanelChannels * kPanelRows));
  const bool widens = m > kernel.narrow_tokens;
  Buffer<float> wide_panels(widens ? panels.size() : 0);
  Buffer<float> sums(static_cast<size_t>(workers * kRun * kPanelRows));
  const int64_t strip_bytes = std::max(kPanelRows * op.x.cols * 2 * std::min(m, kRun), int64_t{1});
  const int64_t most = std::max(strips / (4 * workers), int64_t{1});
  const int64_t grain = std::clamp(kMinBytes / strip_bytes, int64_t{1}, most);
  for_chunks(device, runs * strips, grain, [&](int64_t begin, int64_t end, int worker) {
    uint16_t* panel = panels.data() + worker * kPanelChannels * kPanelRows;
    float* wide = widens ? wide_panels.data() + worker * kPanelChannels * kPanelRows : nullptr;
    float* acc = sums.data() + worker * kRun * kPanelRows;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t token = i / strips * kRun;
      run_strip(op, kernel, i % strips * kPanelRows, token, std::min(kRun, m - token), panel, wide, acc);
    }
  });
}

bool is_half(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16;
}

}  // namespace

bool linear_float_avx2_supports(const DeviceContext& device, const LinearFloat& op) {
  return device.isa >= CpuIsa::avx2 && is_half(op.dtype);
}
void linear_float_avx2(const DeviceContext& device, const LinearFloat& op) {
  run_float(device, op, op.dtype == DType::f16 ? kFloat16Avx2 : kBfloat16Avx2);
}

bool linear_float_avx512_supports(const DeviceContext& device, const LinearFloat& op) {
  return device.isa >= CpuIsa::avx512 && is_half(op.dtype);
}
void linear_float_avx512(const DeviceContext& device, const LinearFloat& op) {
  run_float(device, op, op.dtype == DType::f16 ? kFloat16Avx512 : kBfloat16Avx512);
}

}  // namespace atom::cpu
