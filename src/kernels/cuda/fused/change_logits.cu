// ChangeLogits: penalties, biases and masks on rows of logits [rows, vocab] f32, a block a row; the
// reference's bits. A row's changes are taken kThreads at a time, a thread each. Changes of one token keep
// their order: of those that meet, the first one's thread applies all, so no two threads touch one logit
// between barriers. Then, where the row has a mask, a pass over the row that only writes.

#include "kernels/cuda/fused/dispatch.h"
#include "kernels/cuda/fused/logit_ops.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda {
namespace {

constexpr int kThreads = 512;

__global__ void __launch_bounds__(kThreads)
    change_logits_kernel(float* logits, int64_t vocab, int64_t stride, const int32_t* first,
                         const LogitChange* changes, const int32_t* mask_of, const uint32_t* masks) {
  __shared__ LogitChange shared[kThreads];
  launch_dependents();
  wait_for_dependencies();
  float* x = logits + blockIdx.x * stride;
  const auto at = static_cast<int>(threadIdx.x);
  const int end = first[blockIdx.x + 1];
  for (int begin = first[blockIdx.x]; begin < end; begin += kThreads) {
    const int n = min(kThreads, end - begin);
    if (at < n) shared[at] = changes[begin + at];
    __syncthreads();
    if (at < n) {
      const int32_t token = shared[at].token;
      bool is_first = true;
      for (int i = 0; i < at; ++i) is_first &= shared[i].token != token;
      if (is_first) {
        float logit = x[token];
        for (int i = at; i < n; ++i) {
          if (shared[i].token == token) logit = sampling::changed(logit, shared[i]);
        }
        x[token] = logit;
      }
    }
    __syncthreads();
  }
  if (mask_of[blockIdx.x] < 0) return;
  const uint32_t* mask = masks + mask_of[blockIdx.x] * ((vocab + 31) / 32);
  for (int64_t i = at; i < vocab; i += kThreads) {
    if ((mask[i / 32] >> (i % 32) & 1) == 0) x[i] = -INFINITY;
  }
}

}  // namespace

void change_logits(const ChangeLogits& op, cudaStream_t stream) {
  const MatrixView<float>& logits = op.logits;
  fused::expect(static_cast<int64_t>(op.first.size()) == logits.rows + 1 &&
                    static_cast<int64_t>(op.mask_of.size()) == logits.rows,
                "change_logits: ranges of changes and masks are one a row");
  if (logits.rows == 0) return;
  launch(change_logits_kernel, dim3(static_cast<unsigned>(logits.rows)), dim3(kThreads), 0, stream, {},
         logits.data, logits.cols, logits.stride, op.first.data(), op.changes.data(), op.mask_of.data(),
         op.masks.data());
}

}  // namespace atom::cuda
