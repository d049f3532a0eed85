// Attention of one layer of SmolLM2 (9 query heads, 3 KV heads, head_dim 64; also Llama's 32 and 8 of 128)
// over a paged cache of blocks of 16, for every cache format and instruction set of this processor: prefill
// of a whole window, and decode of a batch of sequences at a context. GFLOPS counts a multiply-add as two,
// causal work alone; of_peak is its share of the float FMA peak measured at the start; GB_per_s is what is
// read of the cache; vs_f16 is the time of the f16 cache for the same shape and level, measured in the same
// run, over this one's. ATOM_BENCH_THREADS sets the number of threads; with 1, times are processor times,
// which other load disturbs less.
//   atom_bench --benchmark_filter='attention/prefill/2048'

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/attention_testing.h"
#include "kernels/ops.h"

namespace atom {
namespace {

using testing::AttentionBatch;
using testing::AttentionShape;

int thread_count() {
  const char* asked = std::getenv("ATOM_BENCH_THREADS");
  return std::max(
      1, asked != nullptr ? std::atoi(asked) : static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool& pool() {
  static ThreadPool threads(thread_count());
  return threads;
}

#if defined(__x86_64__)

constexpr int64_t kPeakSteps = 1 << 16;
constexpr int kPeakChains = 12;

[[gnu::target("avx2,fma")]] float fma_chains_avx2() {
  __m256 x[kPeakChains];
  for (auto& v : x) v = _mm256_set1_ps(1.0f);
  const __m256 a = _mm256_set1_ps(0.999f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kPeakChains; ++c) x[c] = _mm256_fmadd_ps(x[c], a, a);
  }
  __m256 sum = x[0];
  for (int c = 1; c < kPeakChains; ++c) sum = _mm256_add_ps(sum, x[c]);
  return _mm256_cvtss_f32(sum);
}

[[gnu::target("avx512f")]] float fma_chains_avx512() {
  __m512 x[kPeakChains];
  for (auto& v : x) v = _mm512_set1_ps(1.0f);
  const __m512 a = _mm512_set1_ps(0.999f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kPeakChains; ++c) x[c] = _mm512_fmadd_ps(x[c], a, a);
  }
  __m512 sum = x[0];
  for (int c = 1; c < kPeakChains; ++c) sum = _mm512_add_ps(sum, x[c]);
  return _mm512_cvtss_f32(sum);
}

/// Float GFLOPS of one thread at `level`, the best of some tries.
double peak_gflops(const std::string& level) {
  static std::map<std::string, double> known;
  if (level == "reference") return 0;
  const auto found = known.find(level);
  if (found != known.end()) return found->second;
  double best = 0;
  for (int round = 0; round < 50; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(level == "avx512" ? fma_chains_avx512() : fma_chains_avx2());
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    const double lanes = level == "avx512" ? 16 : 8;
    best = std::max(best, 2.0 * kPeakChains * lanes * kPeakSteps / time.count() * 1e-9);
  }
  return known[level] = best;
}

#else

double peak_gflops(const std::string&) {
  return 0;
}

#endif

struct Case {
  std::string name;
  AttentionShape shape;
  int64_t context;
  int64_t rows;
  int64_t batch;
  const char* level;
};

void run_case(benchmark::State& state, const Case& c) {
  static std::map<std::string, double> f16_seconds;
  AttentionBatch batch(c.shape, std::vector<int64_t>(static_cast<size_t>(c.batch), c.context),
                       std::vector<int64_t>(static_cast<size_t>(c.batch), c.rows));
  const Attention op = batch.op();
  const DeviceContext device{&pool(), detect_cpu_isa()};
  void (*run_level)(const DeviceContext&, const Attention&) = nullptr;
  for (const auto& candidate : implementations<Attention>()) {
    if (std::string(candidate.name) == c.level) run_level = candidate.run;
  }
  double best = 1e30;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    run_level(device, op);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
    benchmark::ClobberMemory();
  }
  const int64_t window = c.shape.window > 0 ? c.shape.window : c.context;
  double pairs = 0;
  for (int64_t p = c.context - c.rows + 1; p <= c.context; ++p) {
    pairs += static_cast<double>(std::min(p, window) * c.batch);
  }
  const double flops =
      4.0 * pairs * static_cast<double>(c.shape.head_dim * c.shape.n_kv_heads * c.shape.group);
  const int64_t row_bytes = batch.view().row_bytes() + (is_quantized(c.shape.format) ? 4 : 0);
  const int64_t keys = std::min(c.context, window + c.rows - 1);
  const double bytes = 2.0 * static_cast<double>(row_bytes * c.shape.n_kv_heads * keys * c.batch);
  using benchmark::Counter;
  state.counters["GFLOPS"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GB_per_s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  const double peak = peak_gflops(c.level) * pool().size();
  if (peak > 0) state.counters["of_peak"] = Counter(flops * 1e-9 / peak, Counter::kIsIterationInvariantRate);
  const std::string key = c.name + c.level;
  if (c.shape.format == KvFormat::f16) f16_seconds[key] = best;
  if (f16_seconds.count(key) != 0) state.counters["vs_f16"] = f16_seconds[key] / best;
}

void add(Case c) {
  constexpr const char* kFormatNames[] = {"f32", "f16", "int8", "int4"};
  constexpr KvFormat kFormats[] = {KvFormat::f16, KvFormat::f32, KvFormat::int8, KvFormat::int4};
  std::vector<const char*> levels{"reference"};
  if (detect_cpu_isa() >= CpuIsa::avx2) levels.push_back("avx2");
  if (detect_cpu_isa() >= CpuIsa::avx512) levels.push_back("avx512");
  for (const char* level : levels) {
    const bool reference = std::string(level) == "reference";
    for (const KvFormat format : kFormats) {
      // The reference is there to show what vectors gain; one format will do.
      if (reference && format != KvFormat::f16) continue;
      c.level = level;
      c.shape.format = format;
      const std::string name =
          "attention/" + c.name + "/" + kFormatNames[static_cast<int>(format)] + "/" + level;
      auto* registered =
          benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& state) { run_case(state, c); });
      registered->Unit(benchmark::kMicrosecond);
      if (thread_count() > 1) registered->UseRealTime();
      if (reference) registered->Iterations(1);
    }
  }
}

[[maybe_unused]] const bool kRegistered = [] {
  const AttentionShape smol{KvFormat::f16, 64, 3, 3, 16};
  const AttentionShape llama{KvFormat::f16, 128, 8, 4, 16};
  for (const int64_t n : {512, 2048}) add({"prefill/" + std::to_string(n), smol, n, n, 1, ""});
  const AttentionShape windowed{KvFormat::f16, 64, 3, 3, 16, 1.0f, 512};
  add({"prefill_window:512/2048", windowed, 2048, 2048, 1, ""});
  add({"decode_window:512/4096/batch:1", windowed, 4096, 1, 1, ""});
  add({"prefill_llama/1024", llama, 1024, 1024, 1, ""});
  for (const int64_t context : {512, 4096}) {
    for (const int64_t batch : {1, 8, 32}) {
      add({"decode/" + std::to_string(context) + "/batch:" + std::to_string(batch), smol, context, 1, batch,
           ""});
    }
  }
  add({"decode_llama/4096/batch:1", llama, 4096, 1, 1, ""});
  return true;
}();

}  // namespace
}  // namespace atom
