// TopColumns: the k largest of each row of x [tokens, vocab] f32, a block a row; the reference's results to
// the bit. Each thread keeps the best key (value descending, then column) of the columns that are congruent
// to it. A round takes the block's best; the warp of the thread that had it then looks for that thread's next
// one, so that the row is read once and a few columns k times.

#include "kernels/cuda/fused/block.cuh"
#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/logit_ops.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

using namespace fused;

__device__ uint64_t key_of(const float* x, int64_t column) {
  const float value = x[column];
  return fabsf(value) < INFINITY ? best_key(value, static_cast<uint32_t>(column)) : kNoKey;
}

__global__ void __launch_bounds__(kRowThreads)
    top_columns_kernel(const float* matrix, int64_t vocab, int64_t stride, int k, int32_t* columns,
                       float* values) {
  __shared__ uint64_t shared[kRowWarps];
  launch_dependents();
  wait_for_dependencies();
  const float* x = matrix + blockIdx.x * stride;
  columns += static_cast<int64_t>(blockIdx.x) * k;
  values += static_cast<int64_t>(blockIdx.x) * k;
  uint64_t mine = kNoKey;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < vocab; i += kRowThreads) mine = min(mine, key_of(x, i));
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int place = 0; place < k; ++place) {
    const uint64_t best = block_min(mine, shared);
    const auto column = static_cast<uint32_t>(best & 0xFFFFFFFFu);
    if (threadIdx.x == 0) {
      columns[place] = best == kNoKey ? -1 : static_cast<int32_t>(column);
      values[place] = best == kNoKey ? -INFINITY : x[column];
    }
    const uint32_t owner = column % kRowThreads;
    if (best == kNoKey || warp != owner / 32) continue;
    uint64_t next = kNoKey;
    for (int64_t i = owner + int64_t{lane} * kRowThreads; i < vocab; i += 32 * kRowThreads) {
      const uint64_t key = key_of(x, i);
      if (key > best) next = min(next, key);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      next = min(next, __shfl_xor_sync(~0u, next, distance));
    }
    if (lane == owner % 32) mine = next;
  }
}

}  // namespace

void top_columns(const TopColumns& op, cudaStream_t stream) {
  const MatrixView<const float>& x = op.x;
  expect(op.k >= 1 && op.k <= kMaxTopColumns, "top_columns: k is 1 to 32");
  expect(x.cols < INT32_MAX, "top_columns: too many columns");
  expect(static_cast<int64_t>(op.columns.size()) == x.rows * op.k && op.values.size() == op.columns.size(),
         "top_columns: results are k a row");
  if (x.rows == 0) return;
  launch(top_columns_kernel, dim3(static_cast<unsigned>(x.rows)), dim3(kRowThreads), 0, stream, {}, x.data,
         x.cols, x.stride, static_cast<int>(op.k), op.columns.data(), op.values.data());
}

}  // namespace atom::cuda
