#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cublasLt.h>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/baseline/cold_l2.h"
#include "kernels/cuda/baseline/cublas_lt.h"
#include "kernels/cuda/runtime.h"

namespace atom::cuda::baseline {
namespace {

constexpr int kMaxProposals = 16;
/// Timed runs of an algorithm, after one that is not counted.
constexpr int kRounds = 5;
/// An algorithm this much slower than the fastest in the uncounted run is not timed further.
constexpr float kHopeless = 1.5f;

const char* name_of(OperandType type) {
  constexpr const char* kNames[] = {"f16", "bf16", "e4m3", "s8"};
  return kNames[static_cast<int>(type)];
}

void check(cublasStatus_t status, const char* call, const MatmulArgs& args) {
  require(status == CUBLAS_STATUS_SUCCESS, "{}: {} for a product of {} with m {}, n {}, k {}", call,
          cublasLtGetStatusName(status), name_of(args.type), args.m, args.n, args.k);
}

cudaDataType_t data_type(OperandType type) {
  constexpr cudaDataType_t kTypes[] = {CUDA_R_16F, CUDA_R_16BF, CUDA_R_8F_E4M3, CUDA_R_8I};
  return kTypes[static_cast<int>(type)];
}

cudaDataType_t data_type(ResultType type) {
  constexpr cudaDataType_t kTypes[] = {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF, CUDA_R_32I};
  return kTypes[static_cast<int>(type)];
}

size_t size_of(ResultType type) {
  return type == ResultType::f32 || type == ResultType::s32 ? 4 : 2;
}

int64_t x_stride(const MatmulArgs& args) {
  return args.x_stride != 0 ? args.x_stride : args.k;
}

int64_t y_stride(const MatmulArgs& args) {
  return args.y_stride != 0 ? args.y_stride : args.n;
}

/// The largest power of two, at most 256, that all three pointers are multiples of.
uint32_t alignment_of(const MatmulArgs& args) {
  const auto bits = reinterpret_cast<uintptr_t>(args.x) | reinterpret_cast<uintptr_t>(args.w) |
                    reinterpret_cast<uintptr_t>(args.y) | uintptr_t{256};
  return uint32_t{1} << std::countr_zero(bits);
}

/// The end of the range of m that shares one choice of algorithm: steps of an eighth of the next power of
/// two, at least 8, and 1 by itself.
int64_t shared_m(int64_t m) {
  if (m == 1) return 1;
  const int64_t step =
      std::max<int64_t>(8, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(m))) / 8);
  return (m + step - 1) / step * step;
}

/// What the algorithm depends on; m comes third.
std::array<int64_t, 13> key_of(const MatmulArgs& args) {
  return {static_cast<int64_t>(args.type),
          static_cast<int64_t>(args.result),
          args.m,
          args.n,
          args.k,
          x_stride(args),
          y_stride(args),
          alignment_of(args),
          args.accumulate,
          args.x_scale != nullptr,
          args.w_scale != nullptr,
          args.row_scales,
          args.fast_sums};
}

struct Event {
  cudaEvent_t event = nullptr;
  Event() { ATOM_CUDA_CHECK(cudaEventCreate(&event)); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

struct Scratch {
  void* data = nullptr;
  explicit Scratch(size_t bytes) { ATOM_CUDA_CHECK(cudaMalloc(&data, bytes)); }
  ~Scratch() { cudaFree(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

}  // namespace

/// A struct with a name: nvcc fails on vectors of the library's own, which has none.
struct Algorithm {
  cublasLtMatmulAlgo_t algo = {};
};

/// Descriptors of one product. cuBLASLt is column-major: it computes y^T [n, m] = w [k, n]^T * x^T [k, m].
struct MatmulPlan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  std::vector<Algorithm> proposals;
  Algorithm chosen;
  bool timed = false;

  MatmulPlan() = default;
  MatmulPlan(const MatmulPlan&) = delete;
  MatmulPlan& operator=(const MatmulPlan&) = delete;
  ~MatmulPlan() {
    if (desc != nullptr) cublasLtMatmulDescDestroy(desc);
    for (const auto layout : {w, x, y}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
};

CublasLt::CublasLt(size_t workspace_bytes) : workspace_bytes_(workspace_bytes) {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "cublasLtCreate", {});
  handle_ = handle;
  const cudaError_t allocated = cudaMalloc(&workspace_, workspace_bytes_);
  if (allocated != cudaSuccess) cublasLtDestroy(handle);
  ATOM_CUDA_CHECK(allocated);
}

CublasLt::~CublasLt() {
  plans_.clear();
  cublasLtDestroy(static_cast<cublasLtHandle_t>(handle_));
  cudaFree(workspace_);
}

std::unique_ptr<MatmulPlan> CublasLt::make_plan(const MatmulArgs& args) {
  const bool integers = args.type == OperandType::s8;
  require(integers == (args.result == ResultType::s32), "a product of {} has a result of another type",
          name_of(args.type));
  require(!args.row_scales || (args.x_scale != nullptr && args.w_scale != nullptr),
          "a product with a scale a row lacks the scales");
  auto plan = std::make_unique<MatmulPlan>();
  const auto operand = data_type(args.type), result = data_type(args.result);
  check(cublasLtMatmulDescCreate(&plan->desc, integers ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                 integers ? CUDA_R_32I : CUDA_R_32F),
        "cublasLtMatmulDescCreate", args);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check(cublasLtMatmulDescSetAttribute(plan->desc, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute", args);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  // A is w, B is x.
  if (args.w_scale != nullptr) set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.w_scale);
  if (args.x_scale != nullptr) set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.x_scale);
  if (args.row_scales) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
  }
  if (args.fast_sums) set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
  const auto layout = [&](cublasLtMatrixLayout_t& out, cudaDataType_t type, int64_t rows, int64_t columns,
                          int64_t stride) {
    check(cublasLtMatrixLayoutCreate(&out, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                     stride),
          "cublasLtMatrixLayoutCreate", args);
  };
  layout(plan->w, operand, args.k, args.n, args.k);
  layout(plan->x, operand, args.k, args.m, x_stride(args));
  layout(plan->y, result, args.n, args.m, y_stride(args));
  return plan;
}

void CublasLt::propose(const MatmulArgs& args, MatmulPlan& plan) {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", args);
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, decltype(&cublasLtMatmulPreferenceDestroy)> owner(
      preference, &cublasLtMatmulPreferenceDestroy);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute", args);
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{workspace_bytes_});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, alignment_of(args));
  }
  cublasLtMatmulHeuristicResult_t results[kMaxProposals];
  int found = 0;
  check(cublasLtMatmulAlgoGetHeuristic(static_cast<cublasLtHandle_t>(handle_), plan.desc, plan.w, plan.x,
                                       plan.y, plan.y, preference, kMaxProposals, results, &found),
        "cublasLtMatmulAlgoGetHeuristic", args);
  plan.proposals.clear();
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) plan.proposals.push_back({results[i].algo});
  }
  require(!plan.proposals.empty(), "cuBLASLt has no algorithm for a product of {} with m {}, n {}, k {}",
          name_of(args.type), args.m, args.n, args.k);
  plan.chosen = plan.proposals.front();
}

void CublasLt::launch(const MatmulArgs& args, MatmulPlan& plan, int algorithm, void* out,
                      cudaStream_t stream) {
  const auto pointer = [&](cublasLtMatmulDescAttributes_t attribute, const float* value) {
    if (value == nullptr) return;
    check(cublasLtMatmulDescSetAttribute(plan.desc, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute", args);
  };
  pointer(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.w_scale);
  pointer(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.x_scale);
  const float one = 1.0f, beta = args.accumulate ? 1.0f : 0.0f;
  const int32_t int_one = 1, int_beta = args.accumulate ? 1 : 0;
  const bool integers = args.type == OperandType::s8;
  const void* a = integers ? static_cast<const void*>(&int_one) : &one;
  const void* b = integers ? static_cast<const void*>(&int_beta) : &beta;
  const auto& algo = algorithm < 0 ? plan.chosen.algo : plan.proposals[static_cast<size_t>(algorithm)].algo;
  check(cublasLtMatmul(static_cast<cublasLtHandle_t>(handle_), plan.desc, a, args.w, plan.w, args.x, plan.x,
                       b, args.y, plan.y, out, plan.y, &algo, workspace_, workspace_bytes_, stream),
        "cublasLtMatmul", args);
}

void CublasLt::choose_fastest(const MatmulArgs& args, MatmulPlan& plan, cudaStream_t stream) {
  plan.timed = true;
  const int count = static_cast<int>(plan.proposals.size());
  if (count == 1) return;
  // With `accumulate`, runs that only measure must not add to y.
  std::unique_ptr<Scratch> elsewhere;
  if (args.accumulate) {
    elsewhere =
        std::make_unique<Scratch>(static_cast<size_t>(args.m * y_stride(args)) * size_of(args.result));
  }
  void* out = elsewhere ? elsewhere->data : args.y;
  const ColdL2 cold;
  const Event begin, end;
  const auto microseconds = [&](int i) {
    cold.flush(stream);
    ATOM_CUDA_CHECK(cudaEventRecord(begin.event, stream));
    launch(args, plan, i, out, stream);
    ATOM_CUDA_CHECK(cudaEventRecord(end.event, stream));
    ATOM_CUDA_CHECK(cudaEventSynchronize(end.event));
    float milliseconds = 0;
    ATOM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.event, end.event));
    return milliseconds * 1000;
  };
  // The first run of a kernel loads it; the second says whether it is worth timing.
  std::vector<float> first(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    microseconds(i);
    first[static_cast<size_t>(i)] = microseconds(i);
  }
  const float bound = *std::min_element(first.begin(), first.end()) * kHopeless;
  std::vector<std::vector<float>> times(static_cast<size_t>(count));
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < count; ++i) {
      if (first[static_cast<size_t>(i)] <= bound) times[static_cast<size_t>(i)].push_back(microseconds(i));
    }
  }
  float best = std::numeric_limits<float>::infinity();
  for (int i = 0; i < count; ++i) {
    auto& of_one = times[static_cast<size_t>(i)];
    if (of_one.empty()) continue;
    std::nth_element(of_one.begin(), of_one.begin() + kRounds / 2, of_one.end());
    if (of_one[kRounds / 2] < best) {
      best = of_one[kRounds / 2];
      plan.chosen = plan.proposals[static_cast<size_t>(i)];
    }
  }
}

MatmulPlan& CublasLt::plan_for(const MatmulArgs& args, cudaStream_t stream) {
  const Key key = key_of(args);
  auto& plan = plans_[key];
  if (plan != nullptr && plan->timed) return *plan;
  if (plan == nullptr) plan = make_plan(args);
  Key shared = key;
  shared[2] = shared_m(args.m);
  if (const auto near = nearby_.find(shared); near != nearby_.end()) {
    cublasLtMatmulHeuristicResult_t checked = {};
    checked.algo = near->second->chosen.algo;
    const cublasStatus_t status =
        cublasLtMatmulAlgoCheck(static_cast<cublasLtHandle_t>(handle_), plan->desc, plan->w, plan->x, plan->y,
                                plan->y, &checked.algo, &checked);
    if (status == CUBLAS_STATUS_SUCCESS && checked.workspaceSize <= workspace_bytes_) {
      plan->chosen.algo = near->second->chosen.algo;
      plan->timed = true;
      return *plan;
    }
  }
  if (plan->proposals.empty()) propose(args, *plan);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  ATOM_CUDA_CHECK(cudaStreamIsCapturing(stream, &capture));
  if (capture == cudaStreamCaptureStatusNone) {
    choose_fastest(args, *plan, stream);
    nearby_[shared] = plan.get();
  }
  return *plan;
}

void CublasLt::matmul(const MatmulArgs& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return;
  launch(args, plan_for(args, stream), -1, args.y, stream);
}

int CublasLt::proposals(const MatmulArgs& args) {
  auto& plan = plans_[key_of(args)];
  if (plan == nullptr) plan = make_plan(args);
  if (plan->proposals.empty()) {
    const auto chosen = plan->chosen;
    propose(args, *plan);
    if (plan->timed) plan->chosen = chosen;
  }
  return static_cast<int>(plan->proposals.size());
}

void CublasLt::matmul_by_proposal(const MatmulArgs& args, int i, cudaStream_t stream) {
  require(i >= 0 && i < proposals(args), "cuBLASLt proposes no algorithm {}", i);
  launch(args, *plans_[key_of(args)], i, args.y, stream);
}

}  // namespace atom::cuda::baseline
