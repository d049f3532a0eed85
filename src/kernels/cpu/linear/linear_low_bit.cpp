// Driver of the low-bit linear kernels: checks, the division of the output among threads, and the call.
// The output is cut into strips of 32 rows (whose weights stay in the first-level cache while tokens stream)
// by runs of tokens (whose activations stay in the cache while strips pass). How it is cut never
// changes a result: every output is computed whole by one tile.

#include <algorithm>
#include <cassert>

#include "kernels/cpu/linear/linear.h"
#include "kernels/cpu/linear/low_bit_job.h"
#include "kernels/cpu/linear/packed_layout.h"
#include "kernels/cpu/linear/partition.h"

namespace atom::cpu {
namespace {

/// Tokens of a run. Weights are read again for every run, some bytes for a thousand multiply-adds, and that
/// is cheap; longer runs would write to more rows of y at once than a TLB has pages.
constexpr int64_t kRun = 72;
/// A multiple of every kernel's tile.
constexpr int64_t kTokenMultiple = 8;
/// Multiply-adds below which a piece of work is not worth handing out, some microseconds.
constexpr int64_t kMinWork = 1 << 18;

LowBitJob job_of(const LinearLowBit& op) {
  const QuantizedActivations& x = *op.x;
  const PreparedWeight& w = *op.w;
  const PackedLayout packed(PackedLayout::rows_of(w.weight_layout), w.n, w.layout);
  LowBitJob job{};
  job.n = w.n;
  job.groups = packed.groups;
  job.chunks_per_group = packed.chunks_per_group;
  job.last_chunks = packed.chunks - std::max<int64_t>(packed.groups - 1, 0) * packed.chunks_per_group;
  job.group = packed.group;
  job.n_outlier = w.layout.n_outlier;
  job.fp16_outliers = w.layout.outlier_type == OutlierType::fp16;
  job.values = w.values.data();
  job.block_bytes = packed.block_bytes();
  job.scales = w.scales.data();
  job.outliers = reinterpret_cast<const uint8_t*>(w.outliers.data());
  job.outlier_scales = w.outlier_scales.data();
  job.outliers_fp16 = w.outliers_fp16.data();
  if (w.layout.integer_scales) {
    job.units = w.units.data();
    job.x_units = x.units();
  }
  job.x = x.values(0);
  job.x_stride = x.stride();
  job.x_outlier_offset = x.outlier_offset();
  job.x_scales = x.scales(0);
  job.x_sums = x.sums(0);
  job.x_scale_stride = x.scale_stride();
  job.x_fp16 = job.fp16_outliers ? x.outliers_fp16(0) : nullptr;
  job.activation_bits = x.spec().bits;
  job.y = op.y.data;
  job.y_stride = op.y.stride;
  job.accumulate = op.accumulate;
  return job;
}

void run_low_bit(const DeviceContext& device, const LinearLowBit& op, LowBitKernel kernel) {
  assert(op.x->layout() == op.w->layout && op.y.rows == op.x->tokens() && op.y.cols == op.w->n);
  const int64_t tokens = op.x->tokens();
  if (tokens == 0 || op.w->n == 0) return;
  const LowBitJob job = job_of(op);
  const int64_t strips = (job.n + kLowBitRows - 1) / kLowBitRows;
  const int64_t runs = (tokens + kRun - 1) / kRun;
  const int64_t run = ((tokens + runs - 1) / runs + kTokenMultiple - 1) / kTokenMultiple * kTokenMultiple;
  const int64_t strip_work = kLowBitRows * job.x_stride * std::min(run, tokens);
  const int64_t most = std::max(strips / (int64_t{4} * worker_count(device)), int64_t{1});
  const int64_t grain = std::clamp(kMinWork / strip_work, int64_t{1}, most);
  for_chunks(device, runs * strips, grain, [&](int64_t begin, int64_t end, int) {
    while (begin < end) {
      const int64_t token = begin / strips * run;
      const int64_t strip = begin % strips;
      const int64_t strip_end = std::min(strips, strip + end - begin);
      kernel(job, strip * kLowBitRows, std::min(strip_end * kLowBitRows, job.n), token,
             std::min(token + run, tokens));
      begin += strip_end - strip;
    }
  });
}

bool fits(const DeviceContext& device, const LinearLowBit& op, CpuIsa isa, WeightLayout layout) {
  const int bits = op.x->spec().bits;
  return device.isa >= isa && op.w->weight_layout == layout && (bits == 4 || bits == 8);
}

}  // namespace

bool linear_low_bit_avx2_supports(const DeviceContext& device, const LinearLowBit& op) {
  return fits(device, op, CpuIsa::avx2, WeightLayout::rows8_avx2);
}
void linear_low_bit_avx2(const DeviceContext& device, const LinearLowBit& op) {
  run_low_bit(device, op, low_bit_avx2);
}

bool linear_low_bit_avx512_supports(const DeviceContext& device, const LinearLowBit& op) {
  return fits(device, op, CpuIsa::avx512, WeightLayout::rows16_avx512);
}
void linear_low_bit_avx512(const DeviceContext& device, const LinearLowBit& op) {
  run_low_bit(device, op, low_bit_avx512);
}

bool linear_low_bit_avx512vnni_supports(const DeviceContext& device, const LinearLowBit& op) {
  return fits(device, op, CpuIsa::avx512vnni, WeightLayout::rows16_avx512);
}
void linear_low_bit_avx512vnni(const DeviceContext& device, const LinearLowBit& op) {
  run_low_bit(device, op, low_bit_avx512vnni);
}

}  // namespace atom::cpu
