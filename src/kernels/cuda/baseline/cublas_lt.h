#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <map>
#include <memory>

namespace atom::cuda::baseline {

/// Types of both operands: f16, bf16 (f32 sums), e4m3 (FP8, f32 sums) or s8 (exact s32 sums).
enum class OperandType : uint8_t { f16, bf16, e4m3, s8 };
/// Types of the result: f32 for float operands, and f16 or bf16 (of f16 or bf16 operands their own type
/// alone); s32 for s8 ones.
enum class ResultType : uint8_t { f32, f16, bf16, s32 };

/// y[m, n] = x[m, k] * w[n, k]^T, and y added where `accumulate`. All on the device, row-major, channels
/// dense, 16-byte aligned; k must be a multiple of 8 for f16 and bf16, of 16 for e4m3 and s8 (and n then a
/// multiple of 16).
struct MatmulArgs {
  OperandType type = OperandType::bf16;
  ResultType result = ResultType::bf16;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const void* x = nullptr;
  const void* w = nullptr;
  void* y = nullptr;
  /// Elements from row to row of x and y; 0: dense.
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  bool accumulate = false;
  /// e4m3 alone: factors of x and w in device memory, null for 1; one of each, or, where `row_scales`, one a
  /// token and one a row of w.
  const float* x_scale = nullptr;
  const float* w_scale = nullptr;
  bool row_scales = false;
  /// e4m3 alone: sums stay in the tensor cores' accumulators, of fewer bits than f32, over all of k.
  bool fast_sums = false;
};

/// Descriptors of one product and the algorithm that was chosen for it.
struct MatmulPlan;

/// Dense products by cuBLASLt. The first product of a shape times up to 16 algorithms that the library's
/// heuristics propose, each several times with a cold L2, and keeps the fastest; products whose m differs
/// little share that choice. While a stream is being captured nothing can be timed: a shape that is new then
/// runs on the library's first proposal, and is timed when it next comes outside a capture. For one stream at
/// a time, as it owns one workspace.
class CublasLt {
 public:
  static constexpr size_t kDefaultWorkspaceBytes = size_t{64} << 20;

  explicit CublasLt(size_t workspace_bytes = kDefaultWorkspaceBytes);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// Throws Error, naming the library's status and the shape, for what cuBLASLt does not run.
  void matmul(const MatmulArgs& args, cudaStream_t stream);

  /// How many algorithms the heuristics propose for a product, and the product by the i-th of them: what
  /// `matmul` has to be compared with.
  int proposals(const MatmulArgs& args);
  void matmul_by_proposal(const MatmulArgs& args, int i, cudaStream_t stream);

  /// The workspace, for kernels beside cuBLASLt's on the same stream.
  void* workspace() const { return workspace_; }
  size_t workspace_bytes() const { return workspace_bytes_; }

 private:
  /// All of a product that its plan depends on.
  using Key = std::array<int64_t, 13>;

  MatmulPlan& plan_for(const MatmulArgs& args, cudaStream_t stream);
  std::unique_ptr<MatmulPlan> make_plan(const MatmulArgs& args);
  void propose(const MatmulArgs& args, MatmulPlan& plan);
  void choose_fastest(const MatmulArgs& args, MatmulPlan& plan, cudaStream_t stream);
  void launch(const MatmulArgs& args, MatmulPlan& plan, int algorithm, void* out, cudaStream_t stream);

  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  size_t workspace_bytes_ = 0;
  /// One a shape. The algorithm that was chosen for one m is tried first for those near it.
  std::map<Key, std::unique_ptr<MatmulPlan>> plans_;
  std::map<Key, const MatmulPlan*> nearby_;
};

/// y[m, n] = fma(float(sums[m, n]), x_scale[m] * w_scale[n], 0) (+ y), as LinearLowBit has it: what follows
/// an s8 product (W8A8). y is f32, f16 or bf16; strides are elements from row to row, 0: dense.
struct DequantizeSumsArgs {
  int64_t m = 0;
  int64_t n = 0;
  const int32_t* sums = nullptr;
  int64_t sums_stride = 0;
  const float* x_scale = nullptr;
  const float* w_scale = nullptr;
  ResultType result = ResultType::f32;
  void* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};
void dequantize_sums(DequantizeSumsArgs args, cudaStream_t stream);

}  // namespace atom::cuda::baseline
